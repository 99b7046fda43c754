package perf

import (
	"sync"
	"sync/atomic"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/khamsin-io/khamsin/dataplane/counters"
	"github.com/khamsin-io/khamsin/vsync"
)

// tally counts what one kind of handler of a member got. Its handlers write, one at a time; delivered and bytes may be
// read by anybody, the rest when the handlers are known to be at rest.
type tally struct {
	clock     hostClock
	self      func() vsync.Address
	delivered counters.Counter
	bytes     counters.Counter
	from      atomic.Int64 // latencies count for messages stamped from this time on; 0: none
	to        atomic.Int64 // until this time

	mu        sync.Mutex // held by readers of what follows, and by a handler that records a latency
	own       *hdrhistogram.Histogram
	others    *hdrhistogram.Histogram
	sequences map[vsync.Address]*sequence
	last      *sequence // of lastFrom: a sender's messages come in bursts
	lastFrom  vsync.Address
	doneBy    int
	wantBy    int           // members that will say that they are done
	complete  chan struct{} // closed when all of them have, and all that they sent is here
	malformed uint64
}

// sequence is what was heard of one sender's messages.
type sequence struct {
	next  uint64 // the number that comes next
	gaps  uint64 // numbers that were skipped
	again uint64 // numbers that came twice, or late
	told  uint64 // how many the sender says it sent
	done  bool
}

func newTally(c hostClock, self func() vsync.Address) *tally {
	return &tally{
		clock: c, self: self, own: newHistogram(), others: newHistogram(),
		sequences: make(map[vsync.Address]*sequence), complete: make(chan struct{}),
	}
}

// data takes one message in.
func (t *tally) data(m *vsync.Message) { t.note(m.From, m.Payload) }

// note is data of a message taken apart.
func (t *tally) note(from vsync.Address, payload []byte) {
	stamp, number, ok := head(payload)
	if !ok {
		t.malformed++
		return
	}
	t.delivered.Inc()
	t.bytes.Add(uint64(len(payload)))
	s := t.last
	if s == nil || t.lastFrom != from {
		s = t.sequenceOf(from)
	}
	switch {
	case number == s.next:
	case number > s.next:
		s.gaps += number - s.next
	default:
		s.again++
		return
	}
	s.next = number + 1
	if stamp == 0 {
		return
	}
	if begin := t.from.Load(); begin != 0 && stamp >= begin && stamp < t.to.Load() {
		h := t.others
		if from == t.self() {
			h = t.own
		}
		age := t.clock.now() - stamp
		t.mu.Lock()
		record(h, age)
		t.mu.Unlock()
	}
}

func (t *tally) sequenceOf(from vsync.Address) *sequence {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.sequences[from]
	if s == nil {
		s = &sequence{next: 1}
		t.sequences[from] = s
	}
	t.last, t.lastFrom = s, from
	return s
}

// done notes that a sender has sent its last message. It comes behind all of them.
func (t *tally) done(m *vsync.Message) {
	_, sent, ok := head(m.Payload)
	s := t.sequenceOf(m.From)
	t.mu.Lock()
	defer t.mu.Unlock()
	if !ok || s.done {
		t.malformed++
		return
	}
	s.told, s.done = sent, true
	t.doneBy++
	if t.doneBy == t.wantBy {
		close(t.complete)
	}
}

// expect says how many senders will say that they are done.
func (t *tally) expect(senders int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.wantBy = senders
	if senders == t.doneBy {
		close(t.complete)
	}
}

// sums returns what was lost and what came more than once, of senders that are done.
func (t *tally) sums() (expected, lost, duplicated uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range t.sequences {
		if s.done {
			expected += s.told
			lost += s.gaps + s.told + 1 - min(s.next, s.told+1)
		}
		duplicated += s.again
	}
	return expected, lost, duplicated
}
