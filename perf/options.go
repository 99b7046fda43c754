// Package perf measures what a group of processes does: messages a second at the slowest member, latency, processor
// time, packets, losses, on this host or on a cluster, beside what the machine itself can do in the same minute.
//
// A run has one member process for each part. All join one group; when it is complete the member of rank 0 says go, the
// senders work through a warm-up and the measured time, say how much they sent, and everybody waits until all of it is
// there. What is counted lies between two looks at the counters of each member; latency is recorded for messages that
// began in the measured time, from the moment the sender was ready to send, blocked or not, so that a stall counts for
// every message it held up.
//
// Who may call it: command lines. Local starts processes by running this program again with arguments that end in
// Member; Run is one member of a run that something else started, such as ssh, srun or mpirun.
package perf

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Options says what to measure. The zero values of Rate, Window, Packet and Loss mean: as fast as it goes, the
// defaults, none.
type Options struct {
	Members   int           `json:"members"`
	Primitive string        `json:"primitive"` // a name of Primitives
	Size      int           `json:"size"`      // bytes of a message
	Senders   string        `json:"senders"`   // "one", the member of rank 1, or "all"
	Transport string        `json:"transport"` // a name of Transports
	Waiting   string        `json:"waiting"`   // "adaptive", "block" or "busy"
	Inline    bool          `json:"inline"`    // handlers on the receiver's goroutine
	Duration  time.Duration `json:"duration_ns"`
	WarmUp    time.Duration `json:"warm_up_ns"`
	Rate      float64       `json:"rate"`   // messages a second of each sender
	Window    int           `json:"window"` // packets of one sender that may be under way
	Packet    int           `json:"packet"` // bytes of the longest packet
	Loss      float64       `json:"loss"`   // share of packets that every member loses on receiving
	Netns     bool          `json:"netns"`  // each member in a network namespace of its own, on one bridge
	MTU       int           `json:"mtu"`    // of the interfaces there; 0: 1500. Takes Netns
	Count     int           `json:"count"`  // rounds of kill and cut, and of join when it is not 0
	// Detect is the pace of failure detection: "steady", "tight" or "patient". When it is empty rounds are steady, and
	// all else is slow to take a member for dead.
	Detect  string `json:"detect"`
	Floor   bool   `json:"-"` // measure the machine as well
	Profile string `json:"-"` // directory for profiles of each member, of the processor and of allocations
}

// Limits of Options.
const (
	MembersMax  = 64
	SizeMin     = headBytes
	SizeMax     = 6 << 20
	DurationMax = time.Hour
	numbersMax  = 250 // member processes of a run, one after another
	lossMax     = 0.5
	rateMax     = 1e7
	windowMax   = 1 << 16
	packetMin   = 512
	packetMax   = 65507
	mtuMin      = 1280
	mtuMax      = 65535
)

// Validate reports everything that is wrong.
func (o *Options) Validate() error {
	var faults []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	p, known := primitiveNamed(o.Primitive)
	check(known, "primitive: %q, want one of %s", o.Primitive, strings.Join(Primitives(), ", "))
	least := 1
	if known {
		least = p.membersMin
	}
	check(o.Members >= least && o.Members <= MembersMax, "members: %d, want %d to %d", o.Members, least, MembersMax)
	check(o.Size >= SizeMin && o.Size <= SizeMax, "size: %d, want %d to %d", o.Size, SizeMin, SizeMax)
	check(o.Senders == SendersOne || o.Senders == SendersAll, "senders: %q, want one or all", o.Senders)
	check(slices.Contains(Transports(), o.Transport), "transport: %q, want one of %s", o.Transport,
		strings.Join(Transports(), ", "))
	check(o.Transport != byRDMA || !o.Netns, noDevice)
	_, ok := waitings()[o.Waiting]
	check(ok, "waiting: %q, want adaptive, block or busy", o.Waiting)
	check(o.Duration > 0 && o.Duration <= DurationMax, "duration: %v, want up to %v", o.Duration, DurationMax)
	check(o.WarmUp >= 0 && o.WarmUp <= DurationMax, "warm-up: %v, want up to %v", o.WarmUp, DurationMax)
	check(o.Rate >= 0 && o.Rate <= rateMax, "rate: %v, want 0 to %v messages a second", o.Rate, rateMax)
	check(o.Window >= 0 && o.Window <= windowMax, "window: %d, want up to %d packets", o.Window, windowMax)
	check(o.Packet == 0 || o.Packet >= packetMin && o.Packet <= packetMax, "packet: %d, want %d to %d bytes, or 0",
		o.Packet, packetMin, packetMax)
	check(o.Loss >= 0 && o.Loss <= lossMax, "loss: %v, want 0 to %v", o.Loss, lossMax)
	check(o.Count >= 0 && o.Count+o.Members <= numbersMax, "count: %d with %d members, want up to %d together",
		o.Count, o.Members, numbersMax)
	check(o.MTU == 0 || o.Netns, "mtu: takes members in namespaces (netns), which have interfaces of their own")
	check(o.MTU == 0 || o.MTU >= mtuMin && o.MTU <= mtuMax, "mtu: %d, want %d to %d, or 0", o.MTU, mtuMin, mtuMax)
	check(o.Primitive != "cut" || o.Netns, "cut: takes members in namespaces (netns), which have cables")
	_, ok = detections()[o.Detect]
	check(ok, "detect: %q, want steady, tight or patient", o.Detect)
	return errors.Join(faults...)
}

// Values of Options.Senders.
const (
	SendersOne = "one"
	SendersAll = "all"
)
