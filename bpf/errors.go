package bpf

import (
	"errors"
	"strings"
)

// Need is a kind of thing that the programs cannot do without.
type Need uint8

// The needs.
const (
	NeedKernel     Need = iota + 1 // a feature of the kernel
	NeedCapability                 // a privilege of the process
	NeedMemlock                    // memory that may be locked
	NeedMTU                        // an MTU that the driver takes with an XDP program
	NeedQueue                      // a queue of the interface that exists and is free
	NeedInterface                  // an interface whose XDP hook is free, or holds our program
)

// String returns the need's name.
func (n Need) String() string {
	switch n {
	case NeedKernel:
		return "kernel"
	case NeedCapability:
		return "capability"
	case NeedMemlock:
		return "memlock"
	case NeedMTU:
		return "MTU"
	case NeedQueue:
		return "queue"
	case NeedInterface:
		return "interface"
	}
	return "unknown need"
}

// MissingError says what is missing, and what to do about it.
type MissingError struct {
	Need Need
	What string // what was tried
	Hint string // what to do
	Err  error  // what the system said; may be nil
}

// Error is error's.
func (e *MissingError) Error() string {
	parts := []string{"bpf", e.What, "missing " + e.Need.String()}
	if e.Err != nil {
		parts = append(parts, e.Err.Error())
	}
	return strings.Join(parts, ": ") + ": " + e.Hint
}

// Unwrap returns what the system said.
func (e *MissingError) Unwrap() error { return e.Err }

// Is tells whether target is a MissingError of the same need with nothing else set.
func (e *MissingError) Is(target error) bool {
	t, ok := target.(*MissingError)
	return ok && *t == MissingError{Need: e.Need}
}

// Errors of sharing an interface.
var (
	ErrForeignProgram = errors.New("another XDP program is attached")
	ErrOtherVersion   = errors.New("the attached program is of another version of Khamsin")
	ErrSlots          = errors.New("all places for transports on the interface are taken")
	ErrRules          = errors.New("all rules are in use")
	ErrBusy           = errors.New("another process holds the interface's lock")
	ErrClosed         = errors.New("closed")
)
