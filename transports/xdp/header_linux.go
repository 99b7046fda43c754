package xdp

import (
	"encoding/binary"
	"math/bits"
	"net/netip"

	"github.com/khamsin-io/khamsin/dataplane"
)

// mac is an Ethernet address.
type mac [6]byte

const (
	etherIPv4  = 0x0800
	etherIPv6  = 0x86dd
	etherVLAN  = 0x8100
	etherQinQ  = 0x88a8
	ipUDP      = 17
	ipv4Start  = 0x45 // version 4, 20 bytes
	ipv6Start  = 0x60 // version 6
	dontBreak  = 0x40 // the flag "do not fragment", in the high byte
	ttlUnicast = 64
	ipv4Bytes  = 20
	ipv6Bytes  = 40
	udpBytes   = 8
)

// multicastMAC returns the Ethernet address of a multicast address.
func multicastMAC(ip [16]byte) mac {
	if ip[0] == 0xff {
		return mac{0x33, 0x33, ip[12], ip[13], ip[14], ip[15]}
	}
	return mac{0x01, 0x00, 0x5e, ip[13] & 0x7f, ip[14], ip[15]}
}

// origin is what all headers of a transport have in common. IPv4 addresses are in their IPv6-mapped form.
type origin struct {
	mac  mac
	v6   bool
	ip   [16]byte
	port uint16
}

// target is where a packet goes.
type target struct {
	mac  mac
	ip   [16]byte
	port uint16
	ttl  byte
}

// write writes the headers of a datagram into the bytes in front of its payload, which b ends with.
func (o *origin) write(b []byte, to *target, payload []byte) { o.writeParts(b, to, payload, nil) }

// writeParts is write of a payload in two parts, wherever they are; the first one has an even length unless it is all.
func (o *origin) writeParts(b []byte, to *target, head, payload []byte) {
	size := len(head) + len(payload)
	copy(b[0:6], to.mac[:])
	copy(b[6:12], o.mac[:])
	if o.v6 {
		o.writeIPv6(b, to, head, payload)
		return
	}
	binary.BigEndian.PutUint16(b[12:], etherIPv4)
	ip := b[etherHeader : etherHeader+ipv4Bytes]
	ip[0], ip[1] = ipv4Start, 0
	binary.BigEndian.PutUint16(ip[2:], uint16(ipv4Bytes+udpBytes+size))
	ip[4], ip[5], ip[6], ip[7] = 0, 0, dontBreak, 0 // no identification: it is never fragmented
	ip[8], ip[9] = to.ttl, ipUDP
	ip[10], ip[11] = 0, 0
	copy(ip[12:], o.ip[12:])
	copy(ip[16:], to.ip[12:])
	binary.BigEndian.PutUint16(ip[10:], headerChecksum(ip))
	o.writeUDP(b[etherHeader+ipv4Bytes:], to, size) // its checksum is zero: there is none
}

// writeIPv6 is writeParts with IPv6, over which the UDP checksum is a duty.
func (o *origin) writeIPv6(b []byte, to *target, head, payload []byte) {
	binary.BigEndian.PutUint16(b[12:], etherIPv6)
	ip := b[etherHeader : etherHeader+ipv6Bytes]
	ip[0], ip[1], ip[2], ip[3] = ipv6Start, 0, 0, 0
	size := udpBytes + len(head) + len(payload)
	binary.BigEndian.PutUint16(ip[4:], uint16(size))
	ip[6], ip[7] = ipUDP, to.ttl
	copy(ip[8:], o.ip[:])
	copy(ip[24:], to.ip[:])
	udp := b[etherHeader+ipv6Bytes : etherHeader+ipv6Bytes+udpBytes]
	o.writeUDP(udp, to, len(head)+len(payload))
	sum := add(add(add(add(uint64(size)+ipUDP, ip[8:]), udp), head), payload)
	if sum := ^fold(sum); sum != 0 {
		binary.BigEndian.PutUint16(udp[6:], sum)
	} else {
		udp[6], udp[7] = 0xff, 0xff // zero would say that there is none
	}
}

func (o *origin) writeUDP(udp []byte, to *target, size int) {
	binary.BigEndian.PutUint16(udp[0:], o.port)
	binary.BigEndian.PutUint16(udp[2:], to.port)
	binary.BigEndian.PutUint16(udp[4:], uint16(udpBytes+size))
	udp[6], udp[7] = 0, 0
}

// add adds b, as 16-bit numbers, to a sum that fold makes a checksum of. It begins at an even place.
func add(sum uint64, b []byte) uint64 {
	var carry uint64
	for len(b) >= 8 {
		sum, carry = bits.Add64(sum, binary.BigEndian.Uint64(b), carry)
		b = b[8:]
	}
	var rest [8]byte
	copy(rest[:], b)
	sum, carry = bits.Add64(sum, binary.BigEndian.Uint64(rest[:]), carry)
	sum, carry = bits.Add64(sum, 0, carry)
	return sum + carry
}

// fold adds the parts of a sum until 16 bits are left.
func fold(sum uint64) uint16 {
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}

// headerChecksum returns the checksum of an IPv4 header whose checksum field is zero.
func headerChecksum(ip []byte) uint16 {
	var sum uint32
	for i := 0; i < len(ip); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(ip[i:]))
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

// arrived is what the headers of a received frame say.
type arrived struct {
	from    dataplane.Endpoint
	to      [16]byte
	port    uint16
	payload int // offset in the frame
	size    int // bytes of payload
}

// parse reads a frame. It returns false when that is not a whole UDP datagram: the program lets no others through, but
// the bytes are somebody else's.
func parse(b []byte) (a arrived, ok bool) {
	at := etherHeader
	if len(b) < at {
		return a, false
	}
	kind := binary.BigEndian.Uint16(b[at-2:])
	if kind == etherVLAN || kind == etherQinQ {
		at += vlanTag
		if len(b) < at {
			return a, false
		}
		kind = binary.BigEndian.Uint16(b[at-2:])
	}
	var header, total int
	switch ip := b[at:]; kind {
	case etherIPv4:
		header, total = a.readIPv4(ip)
	case etherIPv6:
		header, total = a.readIPv6(ip)
	}
	if total == 0 {
		return a, false
	}
	udp := b[at+header : at+total]
	size := int(binary.BigEndian.Uint16(udp[4:]))
	if size < udpBytes || size > len(udp) {
		return a, false
	}
	a.from.Port = uint32(binary.BigEndian.Uint16(udp))
	a.port = binary.BigEndian.Uint16(udp[2:])
	a.payload, a.size = at+header+udpBytes, size-udpBytes
	return a, true
}

// readIPv4 reads a header and returns its length and that of the packet, which has room for a UDP header; zeros when it
// is no whole packet with UDP in it.
func (a *arrived) readIPv4(ip []byte) (header, total int) {
	if len(ip) < ipv4Bytes || ip[0]>>4 != 4 || ip[9] != ipUDP {
		return 0, 0
	}
	header, total = int(ip[0]&15)*4, int(binary.BigEndian.Uint16(ip[2:]))
	if header < ipv4Bytes || total < header+udpBytes || total > len(ip) || binary.BigEndian.Uint16(ip[6:])&0x3fff != 0 {
		return 0, 0
	}
	a.from.IP, a.to = mapped(ip[12:16]), mapped(ip[16:20])
	return header, total
}

// readIPv6 is readIPv4 of IPv6. Packets of ours have no extension headers.
func (a *arrived) readIPv6(ip []byte) (header, total int) {
	if len(ip) < ipv6Bytes || ip[0]>>4 != 6 || ip[6] != ipUDP {
		return 0, 0
	}
	total = ipv6Bytes + int(binary.BigEndian.Uint16(ip[4:]))
	if total < ipv6Bytes+udpBytes || total > len(ip) {
		return 0, 0
	}
	a.from.IP, a.to = [16]byte(ip[8:24]), [16]byte(ip[24:40])
	return ipv6Bytes, total
}

// mapped returns an IPv4 address in its IPv6-mapped form.
func mapped(ip []byte) [16]byte {
	return [16]byte{10: 0xff, 11: 0xff, 12: ip[0], 13: ip[1], 14: ip[2], 15: ip[3]}
}

// channelOf returns the channel of an address, zero when it is none's.
func channelOf(ip [16]byte) dataplane.Channel {
	if ip[0] == 0xff {
		return dataplane.ChannelOfIPv6(ip)
	}
	if ip != mapped(ip[12:]) {
		return 0
	}
	return dataplane.ChannelOfIPv4([4]byte(ip[12:]))
}

// isProcess tells whether an endpoint is the address of a process, over IPv6 or over IPv4.
func isProcess(e dataplane.Endpoint, v6 bool) bool {
	if e.Port == 0 || e.Port > 0xffff {
		return false
	}
	addr := netip.AddrFrom16(e.IP)
	if addr.Is4In6() == v6 {
		return false
	}
	addr = addr.Unmap()
	return !addr.IsUnspecified() && !addr.IsMulticast() && addr != broadcast
}

var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255}) // immutable: an address
