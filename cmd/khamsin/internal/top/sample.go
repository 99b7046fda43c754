// Package top shows what the processes of a host are doing, from their status sockets.
package top

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/khamsin-io/khamsin/vsync"
)

// readWithin bounds how long one process may take to answer.
const readWithin = 2 * time.Second

// Process is the part of a process's state that is shown, and what follows from two looks at it.
type Process struct {
	System    string   `json:"system"`
	Address   string   `json:"address"`
	Transport string   `json:"transport"`
	Leader    bool     `json:"oracleLeader"`
	Oracle    []string `json:"oracle"`
	Processes []string `json:"processes"`
	Suspects  int      `json:"suspects"`
	Frames    int      `json:"openFrames"`
	Error     string   `json:"error,omitempty"`
	Groups    []Group  `json:"groups"`
	Stats     stats    `json:"stats"`

	Rates Rates `json:"rates"` // a second, since the last look
	at    time.Time
}

// Group is a group of a process.
type Group struct {
	Name     string   `json:"name"`
	View     uint64   `json:"view"`
	Rank     int      `json:"rank"`
	Members  []string `json:"members"`
	Changing bool     `json:"changing"`
	Loading  bool     `json:"loading"`
	Waiting  int      `json:"waiting"`
	Unstable int      `json:"unstable"`
	Queued   int      `json:"queued"`
	Slow     uint64   `json:"slow"`
}

type flow struct{ Packets, Bytes uint64 }

type direction struct {
	Unicast, Multicast  flow
	Duplicates, Dropped uint64
}

func (d *direction) all() flow {
	return flow{d.Unicast.Packets + d.Multicast.Packets, d.Unicast.Bytes + d.Multicast.Bytes}
}

type stats struct {
	Sent, Received direction
	Refused        map[string]uint64
}

func (s *stats) refused() (n uint64) {
	for _, x := range s.Refused {
		n += x
	}
	return n
}

// Rates are changes a second.
type Rates struct {
	SentPackets     float64 `json:"sent_packets"`
	SentBytes       float64 `json:"sent_bytes"`
	ReceivedPackets float64 `json:"received_packets"`
	ReceivedBytes   float64 `json:"received_bytes"`
	Resent          float64 `json:"resent"`
	Dropped         float64 `json:"dropped"`
	Refused         float64 `json:"refused"`
}

// Sample is one look at all processes.
type Sample struct {
	At        time.Time `json:"at"`
	Processes []Process `json:"processes"`
	Silent    []string  `json:"silent,omitempty"` // sockets that gave no answer
}

// Look reads all status sockets of a directory at once, and removes those of processes that were killed. The rates are
// those since an earlier sample, nil for none.
func Look(dir string, before *Sample) (*Sample, error) {
	paths, err := vsync.StatusSockets(dir)
	if err != nil {
		return nil, err
	}
	s := &Sample{At: time.Now(), Processes: []Process{}}
	read := readAll(paths)
	for i, path := range paths {
		p, err := read[i].process, read[i].err
		if errors.Is(err, syscall.ECONNREFUSED) { // its process was killed
			_ = os.Remove(path)
			continue
		}
		if err != nil {
			s.Silent = append(s.Silent, path)
			continue
		}
		if before != nil {
			p.since(before)
		}
		s.Processes = append(s.Processes, *p)
	}
	slices.SortFunc(s.Processes, func(a, b Process) int {
		if c := strings.Compare(a.System, b.System); c != 0 {
			return c
		}
		return strings.Compare(a.Address, b.Address)
	})
	return s, nil
}

// answer is what came of reading a socket.
type answer struct {
	process *Process
	err     error
}

// readAll reads sockets. Those of processes that are stopped answer nothing; all of them take no longer than one.
func readAll(paths []string) []answer {
	answers := make([]answer, len(paths))
	var all sync.WaitGroup
	for i, path := range paths {
		all.Go(func() { answers[i].process, answers[i].err = read(path) })
	}
	all.Wait()
	return answers
}

func read(path string) (*Process, error) {
	c, err := net.DialTimeout("unix", path, readWithin)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(readWithin)); err != nil {
		return nil, err
	}
	p := &Process{at: time.Now()}
	if err := json.NewDecoder(c).Decode(p); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return p, nil
}

// since sets the rates.
func (p *Process) since(before *Sample) {
	i := slices.IndexFunc(before.Processes, func(q Process) bool { return q.Address == p.Address })
	if i < 0 {
		return
	}
	q := &before.Processes[i]
	seconds := p.at.Sub(q.at).Seconds()
	if seconds <= 0 {
		return
	}
	rate := func(now, then uint64) float64 { return float64(now-min(now, then)) / seconds }
	sent, sentThen := p.Stats.Sent.all(), q.Stats.Sent.all()
	got, gotThen := p.Stats.Received.all(), q.Stats.Received.all()
	p.Rates = Rates{
		SentPackets: rate(sent.Packets, sentThen.Packets), SentBytes: rate(sent.Bytes, sentThen.Bytes),
		ReceivedPackets: rate(got.Packets, gotThen.Packets), ReceivedBytes: rate(got.Bytes, gotThen.Bytes),
		Resent:  rate(p.Stats.Sent.Duplicates, q.Stats.Sent.Duplicates),
		Dropped: rate(p.Stats.Sent.Dropped+p.Stats.Received.Dropped, q.Stats.Sent.Dropped+q.Stats.Received.Dropped),
		Refused: rate(p.Stats.refused(), q.Stats.refused()),
	}
}
