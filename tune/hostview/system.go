package hostview

import "net/netip"

// System answers the questions that no file answers, and makes the changes that no file makes. Interfaces are those of
// the calling thread's network namespace.
type System interface {
	// Link returns what the kernel says of an interface.
	Link(name string) (Link, error)
	// Buffers opens a UDP socket, asks for buffers of so many bytes, and returns what was granted.
	Buffers(receive, send int) (Granted, error)
	// PathMTU returns the longest IP packet that the kernel believes to reach a peer. It sends nothing.
	PathMTU(peer netip.Addr) (int, error)
	// Rings, Features, Channels and Coalesce return what an interface's driver says.
	Rings(name string) (Rings, error)
	Features(name string) (map[string]bool, error)
	Channels(name string) (Channels, error)
	Coalesce(name string) (Coalesce, error)
	// XDP returns what an interface's driver can do for AF_XDP.
	XDP(index int) (XDP, error)
	// SetMTU and SetRings change an interface.
	SetMTU(name string, mtu int) error
	SetRings(name string, rx, tx int) error
	// MayConfigure tells whether the caller may change interfaces.
	MayConfigure() bool
}

// Link is an interface.
type Link struct {
	Index     int
	MTU       int
	Loopback  bool
	Multicast bool
	Up        bool
	Kind      string // "veth", "device", …
	TxQueues  int
	RxQueues  int
}

// Granted is what the kernel gave a socket, in bytes as they are asked for: without the doubling that it adds.
type Granted struct {
	Receive, Send             int // to anybody
	ForcedReceive, ForcedSend int // to a process that may exceed the limits; zero when this one may not
}

// Rings are the sizes of an interface's descriptor rings.
type Rings struct{ Rx, RxMax, Tx, TxMax int }

// Channels are the queues that an interface has and could have.
type Channels struct{ Count, Max int }

// Coalesce says how an interface delays its interrupts.
type Coalesce struct {
	RxMicros   int
	AdaptiveRx bool
}

// XDP says what an interface's driver can do.
type XDP struct{ Basic, Redirect, ZeroCopy bool }

// foreign is the system of a computer that is not there.
type foreign struct{}

func (foreign) Link(string) (Link, error)                { return Link{}, ErrForeign }
func (foreign) Buffers(int, int) (Granted, error)        { return Granted{}, ErrForeign }
func (foreign) PathMTU(netip.Addr) (int, error)          { return 0, ErrForeign }
func (foreign) Rings(string) (Rings, error)              { return Rings{}, ErrForeign }
func (foreign) Features(string) (map[string]bool, error) { return nil, ErrForeign }
func (foreign) Channels(string) (Channels, error)        { return Channels{}, ErrForeign }
func (foreign) Coalesce(string) (Coalesce, error)        { return Coalesce{}, ErrForeign }
func (foreign) XDP(int) (XDP, error)                     { return XDP{}, ErrForeign }
func (foreign) SetMTU(string, int) error                 { return ErrForeign }
func (foreign) SetRings(string, int, int) error          { return ErrForeign }
func (foreign) MayConfigure() bool                       { return false }
