package transfer

import (
	"math/bits"
	"time"
)

// Bounds of what the sender does. Times are in nanoseconds of any clock that only goes forward.
const (
	windowFirst = 384 // packets under way at the start
	windowMin   = 48
	delayTarget = int64(2 * time.Millisecond)  // of packets in queues
	holdMax     = int64(60 * time.Millisecond) // that a repair waits for the reports of all receivers
	probeMin    = int64(2 * time.Millisecond)
	probeMax    = int64(50 * time.Millisecond)
	// On a path as short as nearBase, so many packets fill any line; more of them would but stand in queues, which the
	// group's messages stand in as well.
	nearBase   = int64(500 * time.Microsecond)
	nearWindow = 1024

	stampEvery = 32 // packets share a time of sending
	stamps     = 1 << 10
	lossHeavy  = 5 // the window shrinks when more than one packet of so many is lost
)

// Burst is a run of packets to send: segments of data, or parity segments of a block.
type Burst struct {
	Segments []uint32
	Parity   bool
	Block    uint32
	Row      int // first row
	Rows     int
	To       int    // the receiver that alone needs it; −1: multicast
	Number   uint32 // of the first packet
}

// report is what the receivers have told about a block since it was last sent.
type report struct {
	block uint32
	since int64
	by    []claim
}

type claim struct {
	receiver int
	rows     uint8
	lacks    uint64
}

// peer is a receiver as the sender knows it.
type peer struct {
	id     uint64
	heard  bool
	done   bool
	gone   bool
	number uint32
	lost   uint32
	window uint32
	last   int64
}

// Sender decides which packets of a transfer are sent. It belongs to one goroutine.
type Sender struct {
	layout *Layout
	peers  []peer
	burst  int // packets of a burst

	next   uint32 // segment of the first pass
	number uint32 // of the next packet; the first is 1
	base   int64  // least delay that was seen
	queued int64  // how much longer the last one was
	window float64
	floor  uint32 // number up to which every receiver has reported
	losses uint32 // of the worst receiver when the window last shrank
	shrunk uint32 // number at that time
	stamp  [stamps]int64

	sent   []uint32 // for each block: number of its last packet
	rounds []uint8  // for each block: how often it was repaired
	rows   []uint8  // for each block: parity segments that were sent
	open   []*report
	byNo   map[uint32]*report
	free   []*report
	queue  []Burst // repairs, from head on
	head   int

	probe   int64 // when the next probe is due, if nothing else happens
	backoff int64

	// Repaired counts segments that were sent again, Rows parity segments, Single those of both that went to one
	// receiver.
	Repaired, Rows, Single uint64
}

// NewSender returns a sender to receivers with some identities, in bursts of up to burst packets.
func NewSender(l *Layout, receivers []uint64, burst int, now int64) *Sender {
	s := &Sender{
		layout: l, burst: max(1, burst), number: 1, window: windowFirst, sent: make([]uint32, l.Blocks()),
		rounds: make([]uint8, l.Blocks()), rows: make([]uint8, l.Blocks()), byNo: make(map[uint32]*report),
		backoff: probeMin, probe: now,
	}
	for _, id := range receivers {
		s.peers = append(s.peers, peer{id: id, last: now})
	}
	return s
}

// Gone takes a receiver out.
func (s *Sender) Gone(id uint64) {
	for i := range s.peers {
		if s.peers[i].id == id {
			s.peers[i].gone = true
		}
	}
	s.advance()
}

// Receivers returns how many receivers are not done, and how many of those have reported.
func (s *Sender) Receivers() (waiting, heard int) {
	for i := range s.peers {
		if p := &s.peers[i]; !p.gone && !p.done {
			waiting++
			if p.heard {
				heard++
			}
		}
	}
	return waiting, heard
}

// Done tells whether nobody is left that lacks something.
func (s *Sender) Done() bool {
	n, _ := s.Receivers()
	return n == 0
}

// Passed returns the segment up to which everything has been sent at least once.
func (s *Sender) Passed() uint32 { return s.next }

// Last returns the number of the last packet.
func (s *Sender) Last() uint32 { return s.number - 1 }

// Window returns how many packets may be under way.
func (s *Sender) Window() int { return int(s.window) }

// Feedback takes what a receiver reports, and returns false when it is none.
func (s *Sender) Feedback(f *Feedback, now int64) bool {
	r := -1
	for i := range s.peers {
		if s.peers[i].id == f.Receiver && !s.peers[i].gone {
			r = i
		}
	}
	if r < 0 || int32(f.Number-s.number) >= 0 && f.Number != 0 {
		return false
	}
	p := &s.peers[r]
	p.heard, p.last, p.done = true, now, p.done || f.Done
	if p.window = max(windowMin, f.Window); int32(f.Number-p.number) > 0 && !f.More {
		p.number = f.Number
		s.delay(now - s.stamp[p.number/stampEvery%stamps])
	}
	p.lost = max(p.lost, f.Lost)
	for _, e := range f.Entries {
		if e.Block >= s.layout.Blocks() || e.Lacks == 0 || s.sent[e.Block] == 0 || int32(f.Number-s.sent[e.Block]) < 0 {
			continue // it cannot know of what is under way
		}
		if n := s.layout.BlockSize(e.Block); n < BlockLen {
			e.Lacks &= 1<<n - 1
		}
		s.note(r, e, now)
	}
	s.advance()
	s.backoff = probeMin
	s.probe = now + s.backoff
	s.ripen(now)
	return true
}

// delay notes how long a packet and its report took.
func (s *Sender) delay(d int64) {
	if d > 0 && (s.base == 0 || d < s.base) {
		s.base = d
	}
	queued := d - s.base
	s.queued = queued
	switch {
	case queued < delayTarget:
	case queued < 4*delayTarget:
		s.window *= 0.98
	default:
		s.window *= 0.9
	}
	s.window = max(windowMin, s.window)
}

// advance finds out what every receiver has reported, and lets the window grow with it.
func (s *Sender) advance() {
	low, most, lost := s.number-1, uint32(1<<31), uint32(0)
	for i := range s.peers {
		p := &s.peers[i]
		if p.gone || p.done {
			continue
		}
		if int32(p.number-low) < 0 {
			low = p.number
		}
		if p.window > 0 {
			most = min(most, p.window)
		}
		lost = max(lost, p.lost)
	}
	if grown := int32(low - s.floor); grown > 0 {
		s.floor = low
		if s.queued < delayTarget {
			s.window += float64(grown)
		}
		if d := int32(low - s.shrunk); d > int32(s.window) {
			if (lost-s.losses)*lossHeavy > uint32(d) && lost > s.losses {
				s.window /= 2
			}
			s.losses, s.shrunk = lost, low
		}
	}
	if s.base < nearBase {
		most = min(most, nearWindow)
	}
	s.window = max(windowMin, min(s.window, float64(most)))
}

// note keeps what a receiver lacks of a block.
func (s *Sender) note(r int, e Entry, now int64) {
	rep := s.byNo[e.Block]
	if rep == nil {
		if n := len(s.free); n > 0 {
			rep, s.free = s.free[n-1], s.free[:n-1]
		} else {
			rep = &report{}
		}
		*rep = report{block: e.Block, since: now, by: rep.by[:0]}
		s.byNo[e.Block] = rep
		s.open = append(s.open, rep)
	}
	for i := range rep.by {
		if rep.by[i].receiver == r {
			rep.by[i].lacks, rep.by[i].rows = e.Lacks, e.Rows
			return
		}
	}
	rep.by = append(rep.by, claim{r, e.Rows, e.Lacks})
}

// ripen queues the repair of the blocks about which all receivers have reported, or that have waited long enough.
func (s *Sender) ripen(now int64) {
	keep := s.open[:0]
	margin := int32(settleAfter)
	if s.next == s.layout.total && s.head == len(s.queue) {
		margin = 0 // nothing follows; reports are answers to probes, and tell everything
	}
	for _, rep := range s.open {
		if int32(s.floor-s.sent[rep.block]) < margin && now-rep.since < holdMax {
			keep = append(keep, rep)
			continue
		}
		s.repair(rep)
		delete(s.byNo, rep.block)
		s.free = append(s.free, rep)
	}
	s.open = keep
}

// repair queues what the receivers lack of a block: by segments that fit them all when that is less than what they lack
// together, else those that they lack. What one receiver alone still lacks after a first repair goes to it alone.
func (s *Sender) repair(rep *report) {
	union, most, who, n := uint64(0), 0, -1, 0
	for _, c := range rep.by {
		if p := &s.peers[c.receiver]; p.gone || p.done {
			continue
		}
		union |= c.lacks
		most = max(most, bits.OnesCount64(c.lacks)-int(c.rows))
		who = c.receiver
		n++
	}
	if n == 0 {
		return
	}
	b := rep.block
	to := -1
	if waiting, _ := s.Receivers(); n == 1 && s.rounds[b] > 0 && waiting > 1 {
		to = who
	}
	saved := bits.OnesCount64(union) - most
	rows := int(s.rows[b])
	if most > 0 && rows+most <= ParityMax && (saved >= paritySaves || saved > 0 && rows > 0) {
		s.queue = append(s.queue, Burst{Parity: true, Block: b, Row: rows, Rows: most, To: to})
		s.rows[b] += uint8(most)
	} else {
		last := len(s.queue) - 1
		if last < s.head || s.queue[last].Parity || s.queue[last].To != to ||
			len(s.queue[last].Segments)+bits.OnesCount64(union) > s.burst {
			s.queue = append(s.queue, Burst{To: to})
			last++
		}
		q := &s.queue[last]
		for ; union != 0; union &= union - 1 {
			q.Segments = append(q.Segments, b*BlockLen+uint32(bits.TrailingZeros64(union)))
		}
	}
	s.sent[b] = s.number + 1<<30 // reports count again when it has been sent
	s.rounds[b] = min(s.rounds[b]+1, 200)
}

// paritySaves is by how many segments parity must be less than what is missing, to be worth making it and working it
// out.
const paritySaves = 2

// Next returns the next run of packets that may be sent now, in out, whose memory is used again; false if there is none
// at the moment.
func (s *Sender) Next(out *Burst, now int64) bool {
	s.ripen(now)
	room := int(s.window) - int(s.number-1-s.floor)
	if room <= 0 {
		return false
	}
	out.Segments = out.Segments[:0]
	if s.head < len(s.queue) {
		q := &s.queue[s.head]
		segments := append(out.Segments, q.Segments...)
		if *out = *q; len(segments) > s.burst {
			out.Segments = segments[:s.burst]
			q.Segments = append(q.Segments[:0], q.Segments[s.burst:]...)
		} else {
			out.Segments = segments
			if s.head++; s.head == len(s.queue) {
				s.queue, s.head = s.queue[:0], 0
			}
		}
	} else {
		n := min(s.burst, max(room, 1), int(s.layout.total-s.next))
		if n <= 0 {
			return false
		}
		*out = Burst{To: -1, Segments: out.Segments}
		for range n {
			out.Segments = append(out.Segments, s.next)
			s.next++
		}
	}
	out.Number = s.number
	s.count(out, now)
	return true
}

// count notes the packets of a burst as sent.
func (s *Sender) count(b *Burst, now int64) {
	n := len(b.Segments)
	if b.Parity {
		n = b.Rows
		s.Rows += uint64(n)
		s.sent[b.Block] = s.number + uint32(n) - 1
	}
	for i, seg := range b.Segments {
		if block := seg / BlockLen; seg < s.next {
			if s.sent[block] != 0 && s.rounds[block] > 0 {
				s.Repaired++
			}
			s.sent[block] = s.number + uint32(i)
		}
	}
	if b.To >= 0 {
		s.Single += uint64(n)
	}
	for i := s.number; i < s.number+uint32(n); i++ {
		if i%stampEvery == 0 || i == s.number {
			s.stamp[i/stampEvery%stamps] = now
		}
	}
	s.number += uint32(n)
	s.backoff = probeMin
	s.probe = now + s.backoff
}

// Probe tells whether a probe is due, because nothing can be sent and too little is heard. After it the next one is due
// later.
func (s *Sender) Probe(now int64) bool {
	if now < s.probe {
		return false
	}
	s.probe = now + s.backoff
	s.backoff = min(2*s.backoff, probeMax)
	return true
}

// Due returns when the sender wants to be asked again at the latest.
func (s *Sender) Due() int64 {
	due := s.probe
	for _, rep := range s.open {
		due = min(due, rep.since+holdMax)
	}
	return due
}

// Receiver returns the identity of a receiver of a burst.
func (s *Sender) Receiver(i int) uint64 { return s.peers[i].id }
