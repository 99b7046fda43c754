// Package dataplane is the contract between whoever sends and receives frames and the transports that move them.
//
// A transport moves datagrams: it may lose, duplicate, reorder and (without a checksum of its own) damage them, unless
// its Caps claim otherwise. It knows nothing of groups and views. Frames live in an arena (package frame), so a payload
// is written once by the sender and read in place by the receiver.
package dataplane

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/khamsin-io/khamsin/dataplane/frame"
)

// Endpoint is where a transport reaches one process: an IP address (IPv4 in its IPv6-mapped form) and a port, or a GID
// and a queue pair number for RDMA. It holds no pointer, is comparable, and its zero value is "nowhere".
type Endpoint struct {
	IP   [16]byte
	Port uint32
}

// EndpointOf returns the endpoint of an IP address and a UDP or TCP port. The address's zone is dropped.
func EndpointOf(ap netip.AddrPort) Endpoint {
	return Endpoint{IP: ap.Addr().As16(), Port: uint32(ap.Port())}
}

// AddrPort returns the endpoint as an IP address and port, with IPv4 addresses in their short form.
func (e Endpoint) AddrPort() netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom16(e.IP).Unmap(), uint16(e.Port))
}

// IsZero tells whether e is the zero Endpoint.
func (e Endpoint) IsZero() bool { return e == Endpoint{} }

// String returns "ip:port".
func (e Endpoint) String() string {
	if e.Port > 0xffff {
		return fmt.Sprintf("[%s]:qp%d", netip.AddrFrom16(e.IP), e.Port)
	}
	return e.AddrPort().String()
}

// Channel is the number of a multicast channel: an IP multicast address, an RDMA multicast group or an overlay tree.
// How a number becomes an address is the transport's business; over IPv4 it is the offset in 239.0.0.0/8, over IPv6 in
// ff15::4b48:5300:0/104. Zero is no channel.
type Channel uint32

// Limits of channel numbers: 24 bits, so that a channel is an offset in 239.0.0.0/8.
const (
	ChannelMin Channel = 1
	ChannelMax Channel = 1<<24 - 1
)

// IPv4 returns the channel's address in 239.0.0.0/8.
func (c Channel) IPv4() netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], 239<<24|uint32(c))
	return netip.AddrFrom4(b)
}

// IPv6 returns the channel's address in ff15::4b48:5300:0/104: transient, and of no wider scope than a site.
func (c Channel) IPv6() netip.Addr {
	b := [16]byte{0: 0xff, 1: 0x15, 10: 'K', 11: 'H', 12: 'S', 13: byte(c >> 16), 14: byte(c >> 8), 15: byte(c)}
	return netip.AddrFrom16(b)
}

// ChannelOfIPv4 returns the channel of a multicast address, zero when it is none.
func ChannelOfIPv4(ip [4]byte) Channel {
	if ip[0] != 239 {
		return 0
	}
	return Channel(ip[1])<<16 | Channel(ip[2])<<8 | Channel(ip[3])
}

// ChannelOfIPv6 returns the channel of a multicast address, zero when it is none.
func ChannelOfIPv6(ip [16]byte) Channel {
	c := Channel(ip[13])<<16 | Channel(ip[14])<<8 | Channel(ip[15])
	if c.IPv6().As16() != ip {
		return 0
	}
	return c
}

// Packet is one frame on its way.
//
// On Send, Channel says which multicast channel it goes to; when Channel is zero it goes to the process at To.
// On Receive, From is the sender's endpoint, and Channel is the channel it came by (zero: unicast, or not known).
type Packet struct {
	Frame   frame.Frame
	Channel Channel
	To      Endpoint
	From    Endpoint
}

// Wait says how Receive waits when nothing is there: it polls for Spin, then blocks for the rest of Timeout. A zero
// Timeout polls once; a negative one waits for ever. Spin equal to Timeout never blocks.
type Wait struct {
	Spin    time.Duration
	Timeout time.Duration
}

// Caps says what a transport can do.
type Caps struct {
	Name      string // "udp", "mem", …
	MTU       int    // largest frame in bytes that Send accepts
	Large     int    // the same of frames to one process, where these may be larger than the MTU; else 0
	Batch     int    // packets per call beyond which a larger batch brings nothing
	Multicast bool   // Subscribe and channels work natively
	Reliable  bool   // no loss, no duplicate, no reorder between two live processes
	ZeroCopy  bool   // frames leave and arrive without a copy by the kernel
	BusyPoll  bool   // Receive can spin without a system call per turn
	LoopsBack bool   // a process receives what it sent to a channel it subscribed
}

// A transport whose Caps say Large carries frames above its MTU from one process to another by a way of their own, in
// order among themselves, and without loss while that way stands: a receiver without room slows its senders down. When
// it breaks, or stands still, what is on it is lost and counted (SendDropped), and the next large frame makes a new
// one. The arena's LargeTx pool has frames of that size.

// Stats counts what a transport did since it was opened. Reading it is safe from any goroutine; the numbers are each
// exact but not a snapshot of one moment.
type Stats struct {
	SentPackets      uint64 // accepted by Send, one for each packet of the batch
	SentBytes        uint64 // their bytes
	SentMulticasts   uint64 // those that went to a channel
	SendDropped      uint64 // accepted but refused by the system (buffer full, no route, destination gone)
	SendNoRoom       uint64 // of SendDropped, for want of room in a socket's buffer; other transports than UDP say 0
	SendCalls        uint64 // system calls, or what stands for them
	ReceivedPackets  uint64
	ReceivedBytes    uint64
	ReceiveCalls     uint64
	ReceiveDropped   uint64 // lost for want of room: socket buffer overflow, empty arena
	ReceiveOversize  uint64 // longer than the MTU or cut off by the system; dropped
	ReceiveUndersize uint64 // empty datagrams; dropped
	ReceiveForeign   uint64 // came by another interface, or to an address that is no channel; dropped
	ReceiveFiltered  uint64 // of groups that were not admitted; dropped in the kernel
	ReceiveDoubled   uint64 // second copies of packets, which came by another interface as well; dropped
	ReceiveStalled   uint64 // calls of Receive that found no free frame and so left packets where they were
	Relayed          uint64 // passed on to other members of a tree; among SentPackets as well
	Connections      uint64 // that are open now, of a transport that has some
	ConnectionsMost  uint64 // the most that were open at a time
	Retired          uint64 // connections that were closed because there were too many
}

// Errors of transports.
var (
	ErrClosed      = errors.New("transport closed")
	ErrTooLarge    = errors.New("frame larger than the transport's MTU")
	ErrNoMulticast = errors.New("transport has no native multicast")
	ErrBadChannel  = errors.New("channel number out of range")
)

// GroupFilter is implemented by transports that can drop, in the kernel, multicasts of groups that this process has not
// joined, though it is subscribed to their channel. A transport that was opened with its filter on drops the packets of
// every group that is not admitted; those that belong to no group always come. With the filter off both methods do
// nothing. They may be called by any goroutine.
type GroupFilter interface {
	// Admit starts receiving a group's packets on a subscribed channel. Admitting twice needs one Revoke.
	Admit(ch Channel, group uint32) error

	// Revoke stops receiving them.
	Revoke(ch Channel, group uint32) error
}

// Transport moves frames. One goroutine at a time may call Send, and one (maybe another) Receive; Subscribe,
// Unsubscribe, Wake, Stats and Close may be called by any goroutine.
type Transport interface {
	// Caps says what the transport can do. It does not change while the transport is open.
	Caps() Caps

	// Arena returns the arena whose frames the transport sends and receives without a copy. Its Tx pool belongs to the
	// goroutine that calls Send, its Rx pool to the one that calls Receive.
	Arena() *frame.Arena

	// Local returns the endpoint that others can send to.
	Local() Endpoint

	// Subscribe starts receiving a channel. Subscribing twice is no error and needs one Unsubscribe.
	Subscribe(ch Channel) error

	// Unsubscribe stops receiving a channel. Packets received before may still be returned by Receive.
	Unsubscribe(ch Channel) error

	// Send hands over a batch and returns how many packets, from the front, were accepted. Of each accepted packet's
	// frame it takes one reference. Fewer than all with a nil error is back-pressure: call again later. A packet that
	// the system refuses (no such destination, full socket buffer) counts as accepted and as dropped. An error is about
	// the packet at the returned index, and nothing was taken of it.
	Send(batch []Packet) (int, error)

	// Receive fills the front of batch with packets and returns how many. The caller owns one reference of each frame.
	// It returns 0 and nil when the wait ran out or Wake was called, and ErrClosed after Close.
	Receive(batch []Packet, wait Wait) (int, error)

	// Wake makes a Receive that is blocked, or else the next one that would block, return at once.
	Wake()

	// Stats returns counters since the transport was opened.
	Stats() Stats

	// Close releases sockets and memory, the arena included. Receive returns ErrClosed. All frames must have been
	// released.
	Close() error
}
