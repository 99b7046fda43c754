package main

import (
	"cmp"
	"slices"
	"strings"
)

// room is one line of the house: a package, or a family of packages, and what it may see.
type room struct {
	// path is the directory below the module's root. "perf/..." is perf with everything below it, as one room.
	// "tools/*" makes a room of each directory in tools, with everything below it.
	path string
	// floor is the height. Imports run downwards: to rooms of lower floors.
	floor int
	// sees lists the rooms of the same floor that this one may import.
	sees []string
	// only, when set, lists all that the room may import from the module, besides what it sees. Tests are free of it.
	only []string
	// testSide marks rooms that only tests, and other rooms of the test side, may import.
	testSide bool
}

// The lists that several rooms share.
var (
	// immutable: pure packages that know nothing of packets
	values = []string{"dataplane/clock", "dataplane/invariant", "dataplane/counters", "vsync/core"}

	// immutable: what a protocol machine is made from
	machineNeeds = slices.Concat(values, []string{
		"dataplane", "dataplane/frame", "dataplane/loan", "dataplane/ring", "dataplane/wire",
		"vsync/internal/canary",
	})

	// immutable: the protocol machines
	machines = []string{
		"vsync/internal/member", "vsync/internal/detect", "vsync/internal/link", "vsync/internal/stream",
		"vsync/internal/order", "vsync/internal/safe", "vsync/internal/flush", "vsync/internal/flow",
		"vsync/internal/xfer", "vsync/internal/seal",
	}

	// immutable: what a service built on groups is made from
	public = slices.Concat(values, []string{"vsync", "vsync/codec"})

	// immutable: transports a program may choose from
	transports = []string{
		"transports/udp", "transports/tcp", "transports/xdp", "transports/rdma", "transports/mem",
	}

	// immutable: what a transport is made from
	transportNeeds = []string{
		"dataplane/clock", "dataplane/invariant", "dataplane/counters", "dataplane/frame", "dataplane/ring",
		"dataplane/wire", "dataplane",
	}
)

// house lists every room of the module, bottom up. A package that is not in it is an error, so whoever adds a package
// decides here what it may know.
//
// immutable: the plan of the house
var house = slices.Concat([]room{
	{path: "dataplane/clock", floor: 0},
	{path: "dataplane/invariant", floor: 0},
	{path: "internal/netns", floor: 0, testSide: true},

	{path: "dataplane/counters", floor: 1},
	{path: "dataplane/ring", floor: 1},
	{path: "dataplane/frame", floor: 1, sees: []string{"dataplane/ring"}}, // frames go home over a ring
	{path: "dataplane/wire", floor: 1},
	{path: "dataplane/loan", floor: 1, sees: []string{"dataplane/ring"}}, // so does memory that was lent
	{path: "vsync/internal/canary", floor: 1},                            // names of planted bugs

	{path: "dataplane", floor: 2},
	{path: "vsync/core", floor: 2, sees: []string{"dataplane"}}, // an address knows its endpoint
	{path: "dataplane/tree", floor: 2, sees: []string{"dataplane"}},
	{path: "dataplane/transporttest", floor: 2, sees: []string{"dataplane"}, testSide: true},
	{path: "bpf", floor: 2},

	{path: "transports/udp", floor: 3, only: transportNeeds},
	{path: "transports/tcp", floor: 3, only: transportNeeds},
	// What AF_XDP cannot carry goes by the UDP transport, with the same arena.
	{path: "transports/xdp", floor: 3, sees: []string{"transports/udp"},
		only: slices.Concat(transportNeeds, []string{"bpf"})},
	// Tests alone, against another implementation.
	{path: "transports/xdp/baseline", floor: 4, only: []string{}, testSide: true},
	{path: "transports/rdma", floor: 3, only: transportNeeds},
	{path: "transports/mem", floor: 3, only: transportNeeds},
	{path: "vsync/codec", floor: 3, only: values},
	{path: "vsync/internal/pdu", floor: 3, only: machineNeeds},
	{path: "vsync/internal/tuner", floor: 3, only: values},
}, machineRooms(), []room{
	{path: "vsync/internal/engine", floor: 4,
		only: slices.Concat(machineNeeds, machines, []string{"vsync/internal/pdu"})},
	{path: "vsync/internal/host", floor: 4, sees: []string{"vsync/internal/engine"},
		only: slices.Concat(machineNeeds, []string{"dataplane/tree", "vsync/internal/tuner"})},
	// Connections of its own, beside the transports: what the host knows of them is an interface.
	{path: "vsync/internal/lifeline", floor: 4, only: values},

	// The public package may choose a transport; it moves no frames itself.
	{path: "vsync", floor: 5,
		only: slices.Concat(values, transports, []string{"vsync/internal/host", "vsync/internal/engine",
			"vsync/internal/lifeline", "vsync/internal/tuner", "vsync/internal/seal",
			"vsync/codec", "dataplane", "dataplane/tree", "dataplane/frame", "dataplane/wire",
			"bpf"})},
	{path: "vsync/sim", floor: 5,
		only: slices.Concat(machineNeeds, []string{"vsync/internal/engine", "vsync/internal/pdu", "vsync/codec"})},

	{path: "oob/...", floor: 6, only: slices.Concat(public, transportNeeds)},
	{path: "vsync/dht", floor: 6, only: public},
	{path: "vsync/aggregate", floor: 6, only: public},
	{path: "vsync/lock", floor: 6, only: public},
	{path: "vsync/prom", floor: 6, only: public}, // metrics, apart so that the core does not link their library

	{path: "vsync/field", floor: 7, testSide: true}, // real systems judged by the simulator's checkers
	{path: "perf/...", floor: 7},
	{path: "tune/...", floor: 7},
	{path: "examples/internal/play", floor: 6, testSide: true}, // runs the examples in their tests
	{path: "examples/*", floor: 7,
		only: slices.Concat(public, []string{"vsync/sim", "vsync/dht", "vsync/aggregate", "vsync/lock", "oob/..."})},

	{path: "cmd/*", floor: 8},

	{path: "tools/*", floor: 9},
})

// machineRooms gives every protocol machine its room: machines share the packets' format and do not know each other.
func machineRooms() []room {
	var rooms []room
	for _, path := range machines {
		rooms = append(rooms, room{path: path, floor: 3, sees: []string{"vsync/internal/pdu"}, only: machineNeeds})
	}
	return rooms
}

// clockRoom is the one room below the engines that reads the clock.
const clockRoom = "dataplane/clock"

// engineFloor is the floor of the engines: everything below it gets the time from its caller.
const engineFloor = 4

// deterministic tells whether the packages of dir are protocol machines, which must give the same output for the same
// input: everything in vsync/internal but the host and the
// lifelines, which are sockets.
func deterministic(dir string) bool {
	return strings.HasPrefix(dir, "vsync/internal/") && !within(dir, "vsync/internal/host") &&
		!within(dir, "vsync/internal/lifeline")
}

// findRoom returns the room of the packages in dir. The longest path that matches wins.
func findRoom(dir string) (room, bool) {
	var found []room
	for _, r := range house {
		if name, ok := r.match(dir); ok {
			r.path = name
			found = append(found, r)
		}
	}
	if len(found) == 0 {
		return room{}, false
	}
	return slices.MaxFunc(found, func(a, b room) int { return cmp.Compare(len(a.path), len(b.path)) }), true
}

// match tells whether dir belongs to the room, and returns the room's name: its path, with "*" filled in.
func (r room) match(dir string) (string, bool) {
	if top, ok := strings.CutSuffix(r.path, "/..."); ok {
		return r.path, within(dir, top)
	}
	if top, ok := strings.CutSuffix(r.path, "/*"); ok {
		below, ok := strings.CutPrefix(dir, top+"/")
		first, _, _ := strings.Cut(below, "/")
		return top + "/" + first, ok
	}
	return r.path, dir == r.path
}

// within tells whether dir is top or lies below it.
func within(dir, top string) bool { return dir == top || strings.HasPrefix(dir, top+"/") }
