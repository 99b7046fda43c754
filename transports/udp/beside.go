package udp

import (
	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/frame"
)

// Filter drops, in the kernel, multicasts of groups that nobody here has joined; *bpf.Filter is one. The transport that
// gets it closes it.
type Filter interface {
	// Attach puts the filter on a socket.
	Attach(fd int) error
	// Admit lets packets of a group through.
	Admit(group uint32) error
	// Revoke lets them through no more.
	Revoke(group uint32) error
	// Counts returns how many packets went through and how many were dropped, on all sockets together.
	Counts() (passed, dropped uint64, err error)
	// Close lets go of the filter.
	Close() error
}

// Source is a second way by which packets arrive, beside the sockets: AF_XDP.
type Source interface {
	// Poll returns packets that are there, in frames of the arena, without waiting. Receive calls it.
	Poll(batch []dataplane.Packet) (int, error)
	// Files returns descriptors that can be read when Poll has something to return. They do not change.
	Files() []int32
	// Close gives all frames back. No Send and no Receive is going on, and none follows.
	Close() error
}

// OpenSource opens a source that receives into an arena for the process at local. It is called at the end of Open.
type OpenSource func(arena *frame.Arena, local dataplane.Endpoint) (Source, error)
