package demo

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// Options says what a demo does.
type Options struct {
	Members   int           // processes of the first view, MembersMin to MembersMax
	Transport string        // "udp", "mem" or "rdma"
	Input     string        // path of the rows; empty for BuiltIn
	BuiltIn   []byte        // rows to use without Input
	Seed      uint64        // decides who is killed and when
	Traffic   time.Duration // how long the rows last at the members' rate; 0 means trafficFor
	Suspect   time.Duration // silence that counts as death; 0: by the number of members
	KeepGoing time.Duration // 0: one kill and one join; else random ones for so long
	JSON      bool          // the result as one JSON line on Stdout, everything else on Stderr
	Program   string        // of the member processes: this program
	Stdout    io.Writer
	Stderr    io.Writer
}

// Limits of Options.
const (
	MembersMin   = 3
	MembersMax   = 32
	keepGoingMax = time.Hour
	suspectMax   = settleWithin / 2
)

// validate reports everything that is wrong, and fills in what was left out.
func (o *Options) validate() error {
	var faults []error
	if o.Members < MembersMin || o.Members > MembersMax {
		faults = append(faults, fmt.Errorf("members: %d, want %d to %d", o.Members, MembersMin, MembersMax))
	}
	if o.Transport != "udp" && o.Transport != "mem" && o.Transport != "rdma" {
		faults = append(faults, fmt.Errorf("transport: %q, want udp, mem or rdma", o.Transport))
	}
	if o.KeepGoing < 0 || o.KeepGoing > keepGoingMax {
		faults = append(faults, fmt.Errorf("keep-going: %v, want up to %v", o.KeepGoing, keepGoingMax))
	}
	if o.Suspect < 0 || o.Suspect > suspectMax {
		faults = append(faults, fmt.Errorf("suspect-after: %v, want up to %v", o.Suspect, suspectMax))
	}
	if o.Traffic == 0 {
		o.Traffic = trafficFor
	}
	return errors.Join(faults...)
}

// ports returns the ports of a demo: a group port and the first port of the members, which differ between demos that
// run at once. Both lie below the ports that the system gives to others.
func ports() (group, peer uint16) {
	pid := os.Getpid()
	return uint16(19000 + pid%1000), uint16(20000 + pid%150*80)
}
