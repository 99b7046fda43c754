package udp

import (
	"encoding/binary"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/khamsin-io/khamsin/dataplane"
)

// mmsghdr is struct mmsghdr of sendmmsg(2) and recvmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32 // bytes sent or received
}

// sockaddr has room for an address of either family.
type sockaddr struct {
	in6 unix.RawSockaddrInet6
	_   [4]byte
}

// controlSize is enough for what one message carries: UDP_GRO, SO_RXQ_OVFL and IP_PKTINFO (or IPV6_PKTINFO).
const controlSize = 128

type control [controlSize]byte

// headers is everything that the kernel reads or writes beside payloads, for the messages of one system call. Message
// i uses names[i] and ctls[i]. It is mapped outside the Go heap, since the pointers in a message header must be to
// memory that never moves.
type headers struct {
	mem   []byte
	msgs  []mmsghdr
	iovs  []unix.Iovec
	names []sockaddr
	ctls  []control
}

func newHeaders(msgs, iovs int) (*headers, error) {
	size := msgs*int(unsafe.Sizeof(mmsghdr{})+unsafe.Sizeof(sockaddr{})+unsafe.Sizeof(control{})) +
		iovs*int(unsafe.Sizeof(unix.Iovec{}))
	mem, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, err
	}
	h := &headers{mem: mem}
	h.msgs, mem = carve[mmsghdr](mem, msgs)
	h.names, mem = carve[sockaddr](mem, msgs)
	h.ctls, mem = carve[control](mem, msgs)
	h.iovs, _ = carve[unix.Iovec](mem, iovs)
	for i := range h.msgs {
		h.msgs[i].hdr.Name = (*byte)(unsafe.Pointer(&h.names[i]))
	}
	return h, nil
}

// carve takes n elements off the front of mem. The sizes of all our elements are multiples of their alignment.
func carve[T any](mem []byte, n int) (part []T, rest []byte) {
	size := n * int(unsafe.Sizeof(*new(T)))
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(mem))), n), mem[size:]
}

func (h *headers) close() error { return unix.Munmap(h.mem) }

// setIov makes iovs[i] cover b, which lies in the arena.
func (h *headers) setIov(i int, b []byte) {
	h.iovs[i].Base = unsafe.SliceData(b)
	h.iovs[i].SetLen(len(b))
}

// setName makes message i go to an address and port, which is of the family.
func (h *headers) setName(i int, f family, ip [16]byte, port uint16) {
	if f.v6 {
		sa := &h.names[i].in6
		*sa = unix.RawSockaddrInet6{Family: unix.AF_INET6, Addr: ip}
		if ip[0] == 0xfe && ip[1]&0xc0 == 0x80 { // valid on a link: on this one
			sa.Scope_id = uint32(f.ifIndex)
		}
		binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&sa.Port))[:], port)
		h.msgs[i].hdr.Namelen = unix.SizeofSockaddrInet6
		return
	}
	sa := (*unix.RawSockaddrInet4)(unsafe.Pointer(&h.names[i]))
	sa.Family = unix.AF_INET
	sa.Addr = [4]byte(ip[12:])
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&sa.Port))[:], port)
	h.msgs[i].hdr.Namelen = unix.SizeofSockaddrInet4
}

// name returns who sent message i; the zero Endpoint when the address is of an unknown family.
func (h *headers) name(i int) dataplane.Endpoint {
	sa := (*unix.RawSockaddrInet4)(unsafe.Pointer(&h.names[i]))
	port := binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&sa.Port))[:]) // at the same place in both
	switch sa.Family {
	case unix.AF_INET6:
		return dataplane.Endpoint{IP: h.names[i].in6.Addr, Port: uint32(port)}
	case unix.AF_INET:
	default:
		return dataplane.Endpoint{}
	}
	return dataplane.Endpoint{
		IP:   [16]byte{10: 0xff, 11: 0xff, 12: sa.Addr[0], 13: sa.Addr[1], 14: sa.Addr[2], 15: sa.Addr[3]},
		Port: uint32(port),
	}
}

// setSegment makes the kernel cut message i into datagrams of size bytes; zero leaves it whole.
func (h *headers) setSegment(i, size int) {
	hdr := &h.msgs[i].hdr
	if size == 0 {
		hdr.Control = nil
		hdr.SetControllen(0)
		return
	}
	c := (*unix.Cmsghdr)(unsafe.Pointer(&h.ctls[i]))
	c.Level = unix.SOL_UDP
	c.Type = unix.UDP_SEGMENT
	c.SetLen(unix.CmsgLen(2))
	binary.NativeEndian.PutUint16(h.ctls[i][unix.CmsgLen(0):], uint16(size))
	hdr.Control = &h.ctls[i][0]
	hdr.SetControllen(unix.CmsgSpace(2))
}

// news is what the kernel says about a received message beside its payload.
type news struct {
	segment  int               // bytes of each datagram in a super-packet; zero for a single datagram
	drops    uint32            // datagrams that the socket has lost in its life, when hasDrops
	channel  dataplane.Channel // that it was sent to; zero for none
	ifIndex  int32             // by which it came, when that is told
	hasDrops bool
}

// news reads the control messages of message i.
func (h *headers) news(i int) (n news) {
	left := h.ctls[i][:min(int(h.msgs[i].hdr.Controllen), controlSize)]
	for len(left) >= unix.CmsgLen(0) {
		c := (*unix.Cmsghdr)(unsafe.Pointer(&left[0]))
		size := int(c.Len)
		if size < unix.CmsgLen(0) || size > len(left) {
			break
		}
		data := left[unix.CmsgLen(0):size]
		switch {
		case c.Level == unix.SOL_UDP && c.Type == unix.UDP_GRO && len(data) >= 4:
			n.segment = int(int32(binary.NativeEndian.Uint32(data)))
		case c.Level == unix.SOL_SOCKET && c.Type == unix.SO_RXQ_OVFL && len(data) >= 4:
			n.drops, n.hasDrops = binary.NativeEndian.Uint32(data), true
		case c.Level == unix.IPPROTO_IP && c.Type == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
			info := (*unix.Inet4Pktinfo)(unsafe.Pointer(&data[0]))
			n.channel, n.ifIndex = dataplane.ChannelOfIPv4(info.Addr), info.Ifindex
		case c.Level == unix.IPPROTO_IPV6 && c.Type == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
			info := (*unix.Inet6Pktinfo)(unsafe.Pointer(&data[0]))
			n.channel, n.ifIndex = dataplane.ChannelOfIPv6(info.Addr), int32(info.Ifindex)
		}
		left = left[min(unix.CmsgSpace(len(data)), len(left)):]
	}
	return n
}
