package xdp

import (
	"encoding/binary"
	"net/netip"

	"github.com/khamsin-io/khamsin/dataplane"
)

// mac is an Ethernet address.
type mac [6]byte

// Offsets in the headers that are sent: Ethernet, IPv4 without options, UDP.
const (
	ipOffset  = 14
	udpOffset = ipOffset + 20
)

const (
	etherIPv4   = 0x0800
	etherVLAN   = 0x8100
	etherQinQ   = 0x88a8
	ipUDP       = 17
	ipv4Start   = 0x45 // version 4, 20 bytes
	dontBreak   = 0x40 // the flag "do not fragment", in the high byte
	ttlUnicast  = 64
	multicastIP = 239 // first byte of the channels' addresses
)

// multicastMAC returns the Ethernet address of an IPv4 multicast address.
func multicastMAC(ip [4]byte) mac { return mac{0x01, 0x00, 0x5e, ip[1] & 0x7f, ip[2], ip[3]} }

// origin is what all headers of a transport have in common.
type origin struct {
	mac  mac
	ip   [4]byte
	port uint16
}

// target is where a packet goes.
type target struct {
	mac  mac
	ip   [4]byte
	port uint16
	ttl  byte
}

// write writes the headers of a datagram of size bytes into the frameHeaders bytes of b. The identification is zero,
// as it may be in packets that are never fragmented, and so is the UDP checksum, which says that there is none.
func (o *origin) write(b []byte, to *target, size int) {
	_ = b[frameHeaders-1]
	copy(b[0:6], to.mac[:])
	copy(b[6:12], o.mac[:])
	binary.BigEndian.PutUint16(b[12:], etherIPv4)
	ip := b[ipOffset : ipOffset+20]
	ip[0], ip[1] = ipv4Start, 0
	binary.BigEndian.PutUint16(ip[2:], uint16(packetHeaders+size))
	ip[4], ip[5], ip[6], ip[7] = 0, 0, dontBreak, 0
	ip[8], ip[9] = to.ttl, ipUDP
	ip[10], ip[11] = 0, 0
	copy(ip[12:], o.ip[:])
	copy(ip[16:], to.ip[:])
	binary.BigEndian.PutUint16(ip[10:], headerChecksum(ip))
	udp := b[udpOffset:frameHeaders]
	binary.BigEndian.PutUint16(udp[0:], o.port)
	binary.BigEndian.PutUint16(udp[2:], to.port)
	binary.BigEndian.PutUint16(udp[4:], uint16(8+size))
	udp[6], udp[7] = 0, 0
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
	to      [4]byte
	port    uint16
	payload int // offset in the frame
	size    int // bytes of payload
}

// parse reads a frame. It returns false when that is not a whole UDP datagram over IPv4: the program lets no others
// through, but the bytes are somebody else's.
func parse(b []byte) (a arrived, ok bool) {
	at := ipOffset
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
	ip := b[at:]
	if kind != etherIPv4 || len(ip) < 20 || ip[0]>>4 != 4 || ip[9] != ipUDP {
		return a, false
	}
	header, total := int(ip[0]&15)*4, int(binary.BigEndian.Uint16(ip[2:]))
	if header < 20 || total < header+8 || total > len(ip) || binary.BigEndian.Uint16(ip[6:])&0x3fff != 0 {
		return a, false
	}
	udp := ip[header:total]
	size := int(binary.BigEndian.Uint16(udp[4:]))
	if size < 8 || size > len(udp) {
		return a, false
	}
	a.from = dataplane.Endpoint{
		IP:   [16]byte{10: 0xff, 11: 0xff, 12: ip[12], 13: ip[13], 14: ip[14], 15: ip[15]},
		Port: uint32(binary.BigEndian.Uint16(udp)),
	}
	a.to = [4]byte(ip[16:20])
	a.port = binary.BigEndian.Uint16(udp[2:])
	a.payload, a.size = at+header+8, size-8
	return a, true
}

// channelOf returns the channel of an address, zero when it is none's.
func channelOf(ip [4]byte) dataplane.Channel {
	if ip[0] != multicastIP {
		return 0
	}
	return dataplane.Channel(ip[1])<<16 | dataplane.Channel(ip[2])<<8 | dataplane.Channel(ip[3])
}

// ipv4Of returns the IPv4 address and port of an endpoint, and false when it is no address of a process.
func ipv4Of(e dataplane.Endpoint) (ip [4]byte, port uint16, ok bool) {
	mapped := [16]byte{10: 0xff, 11: 0xff, 12: e.IP[12], 13: e.IP[13], 14: e.IP[14], 15: e.IP[15]}
	ip = [4]byte(e.IP[12:])
	if e.IP != mapped || e.Port == 0 || e.Port > 0xffff {
		return ip, 0, false
	}
	addr := netip.AddrFrom4(ip)
	return ip, uint16(e.Port), !addr.IsUnspecified() && !addr.IsMulticast() && ip[0] != 255
}
