package bpf

// QueuesMax is how many queues of an interface can have sockets.
const QueuesMax = 64

// Mode says where in the receive path the program runs.
type Mode uint8

// The modes.
const (
	// ModeAuto is the driver, or the stack where the driver cannot.
	ModeAuto Mode = iota

	// ModeNative is the driver.
	ModeNative

	// ModeGeneric is the stack. On virtual Ethernet, packets that a peer on this machine sends as one super-packet
	// (UDP_SEGMENT) reach a program there uncut, as one long packet, and are lost: use it only where no peer does that.
	// With a program in the driver the kernel cuts them before.
	ModeGeneric
)

// String returns the mode's name.
func (m Mode) String() string { return [...]string{"auto", "native", "generic"}[m] }
