package dataplane

import "net/netip"

// Bypass is what a transport has besides when it can carry multicasts of others past the kernel's network stack:
// packets that are none of the engine's, such as those of bulk objects. All methods may be called by any goroutine.
// What they return ends with the transport: then, and whenever the interface fails, its methods return errors, and its
// user goes on with sockets of its own.
type Bypass interface {
	// OpenOutlet returns what sends packets of a flow.
	OpenOutlet(f Flow) (Outlet, error)

	// OpenInlet returns what receives packets of a flow. The caller has joined the flow's group with exactly one socket
	// of its own, on the transport's interface, and reads that as well: what does not come past the stack comes there.
	OpenInlet(f Flow) (Inlet, error)
}

// Flow says which packets.
type Flow struct {
	To   netip.AddrPort // a channel's address, and a port
	From uint16         // UDP port that an outlet's packets come from
	TTL  int            // of an outlet's packets, 1 to 255
	Size int            // bytes of the longest payload
}

// Outlet sends packets. One goroutine uses it; Close may be called by any.
type Outlet interface {
	// Put takes a packet, which consists of a head of an even length and a payload. Both are copied. It returns false
	// when there is no room before a Flush.
	Put(head, payload []byte) bool

	// Flush sends what was put, and waits a few milliseconds at most until there is room.
	Flush() error

	Close() error
}

// Datagram is a packet that has arrived.
type Datagram struct {
	From    netip.AddrPort
	Payload []byte // valid until Release; may be changed
}

// Inlet receives packets. One goroutine uses it; Close may be called by any, and waits for Release.
type Inlet interface {
	// Receive returns packets that are there; none, without waiting, when nothing is. After it returned some, Release
	// must be called, before the next Receive.
	Receive(batch []Datagram) (int, error)

	// Release gives back what the last Receive returned.
	Release()

	// Files returns descriptors that can be read when Receive has something to return. They do not change.
	Files() []int32

	// Room returns how many packets may be under way at once without being lost here.
	Room() int

	Close() error
}
