package order

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/khamsin-io/khamsin/vsync/core"
	"github.com/khamsin-io/khamsin/vsync/internal/canary"
	"github.com/khamsin-io/khamsin/vsync/internal/pdu"
)

// However the packets come, members deliver by sender, behind their causes, and in the one order that rank 0's stream
// gives; and once all has come, all of it is delivered.
func TestGate(t *testing.T) {
	// rows: MC-01, MC-03, MC-11, MC-12, MC-13, MC-17, MC-18, MC-19, SAF-02
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t, rapid.IntRange(1, 4).Draw(t, "n"))
		for range rapid.IntRange(0, 60).Draw(t, "steps") {
			w.step()
		}
		w.finish()
		want := w.order(w.length(0))
		for _, m := range w.members {
			if got := m.onlyOrdered(); !slices.Equal(got, want) {
				t.Fatalf("member %d delivered the order %v, want %v", m.self, got, want)
			}
			for r := range w.streams {
				if m.delivered[r] != w.length(core.Rank(r)) {
					t.Fatalf("member %d delivered to %d of rank %d, of %d", m.self, m.delivered[r], r,
						w.length(core.Rank(r)))
				}
			}
		}
	})
}

// finish lets everything arrive.
func (w *world) finish() {
	for _, m := range w.members {
		m.full, m.unsafe = false, false
		m.gate.TouchSafe()
		m.gate.Run()
	}
	for r := range w.streams {
		w.members[0].take(core.Rank(r), w.length(core.Rank(r)))
	}
	for len(w.members[0].gate.Unnumbered()) > 0 {
		w.members[0].number(2)
	}
	for _, m := range w.members {
		for r := range w.streams {
			m.take(core.Rank(r), w.length(core.Rank(r)))
		}
	}
}

// When a view ends, all survivors deliver the same, whatever each had delivered before and whoever crashed: the cut,
// but for what stands behind causes that nobody holds any more; and they agree on the order.
func TestClose(t *testing.T) {
	// rows: MC-08, MC-16, VIEW-15, SAF-31
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 4).Draw(t, "n")
		w := newWorld(t, n)
		for range rapid.IntRange(0, 60).Draw(t, "steps") {
			w.step()
		}
		survivors := slices.Clone(w.members)
		for range rapid.IntRange(0, n-1).Draw(t, "crashes") {
			i := rapid.IntRange(0, len(survivors)-1).Draw(t, "crashed")
			survivors = slices.Delete(survivors, i, i+1)
		}
		cut := make([]core.Seq, n)
		for r := range cut {
			for _, m := range survivors {
				cut[r] = max(cut[r], m.received[r])
			}
		}
		finals := make([][]core.Seq, len(survivors))
		for i, m := range survivors {
			finals[i] = m.close(cut)
		}
		for i, m := range survivors {
			if !slices.Equal(finals[i], finals[0]) || !slices.Equal(m.delivered, finals[0]) {
				t.Fatalf("member %d closed at %v and delivered to %v; member %d closed at %v", m.self, finals[i],
					m.delivered, survivors[0].self, finals[0])
			}
			if a, b := m.onlyOrdered(), survivors[0].onlyOrdered(); !slices.Equal(a, b) {
				t.Fatalf("member %d delivered the order %v, member %d %v", m.self, a, survivors[0].self, b)
			}
		}
		w.checkFinal(cut, finals[0])
	})
}

func (m *member) close(cut []core.Seq) []core.Seq {
	m.full, m.closing = false, true
	for r := range cut {
		m.take(core.Rank(r), cut[r])
	}
	return m.gate.Close(cut)
}

// checkFinal says that what the cut lost is what stands behind lost causes, and nothing else.
func (w *world) checkFinal(cut, final []core.Seq) {
	for r := range cut {
		if final[r] > cut[r] {
			w.t.Fatalf("closed at %d of rank %d, beyond the cut at %d", final[r], r, cut[r])
		}
		if final[r] == cut[r] {
			continue
		}
		p := w.streams[r][final[r]]
		lost := false
		for b := p.payload; p.flags&pdu.FlagCause != 0 && len(b) > 0; {
			c, rest, _ := DecodeCause(b, len(cut))
			lost = lost || c.Rank != core.Rank(r) && c.Seq > final[c.Rank]
			b = rest
		}
		if !lost {
			w.t.Fatalf("rank %d ends at %d of %d, and what follows has its causes", r, final[r], cut[r])
		}
	}
}

// A place whose packet nobody holds any more does not hold up what comes behind it.
func TestCloseSkipsLostPlaces(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t, 3)
		w.members[2].send(pdu.Flags(core.Total), nil)
		w.members[1].send(pdu.Flags(core.Total), nil)
		w.members[0].take(2, 1)
		w.members[0].take(1, 1)
		w.members[0].number(2) // the places: rank 2, then rank 1
		m := w.members[1]
		m.take(0, 1)
		if len(m.log) != 0 {
			t.Fatalf("delivered %v out of order", m.log)
		}
		m.close([]core.Seq{1, 1, 0}) // rank 0 and rank 2 have crashed
		if want := []name{{1, 1}}; !slices.Equal(m.log, want) {
			t.Fatalf("delivered %v, want %v", m.log, want)
		}
	})
}

// A record that is malformed is counted at its receiver and spoils no other stream.
func TestMalformedRecords(t *testing.T) {
	order, cause := pdu.Flags(core.FIFO)|pdu.FlagOrder, pdu.Flags(core.FIFO)|pdu.FlagCause
	for _, c := range []struct {
		name string
		from core.Rank
		p    packet
		ok   bool
	}{
		{"places", 0, packet{order, AppendRun(nil, Run{1, 1})}, true},
		{"places by another rank", 2, packet{order, AppendRun(nil, Run{1, 1})}, false},
		{"places for rank 0", 0, packet{order, AppendRun(nil, Run{0, 1})}, false},
		{"places for nobody", 0, packet{order, AppendRun(nil, Run{3, 1})}, false},
		{"no places", 0, packet{order, AppendRun(nil, Run{1, 0})}, false},
		{"too many places", 0, packet{order, AppendRun(nil, Run{1, 1<<30 + 1})}, false},
		{"half a run", 0, packet{order, []byte{1}}, false},
		{"half a number", 0, packet{order, []byte{0x80}}, false},
		{"half a cause", 2, packet{cause, []byte{1}}, true},
		{"cause of nobody", 2, packet{cause, AppendCause(nil, Cause{3, 1})}, true},
	} {
		w := newWorld(nil, 3)
		w.streams[c.from] = []packet{c.p}
		m := w.members[1]
		m.received[c.from] = 1
		if ok := m.gate.Received(c.from, 0, 1); ok != c.ok {
			t.Errorf("%s: taken %v", c.name, ok)
		}
		m.gate.Run()
		if m.delivered[c.from] != 1 {
			t.Errorf("%s: holds up its own stream", c.name)
		}
	}
}

func TestRecordsRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, core.MembersMax).Draw(t, "n")
		run := Run{core.Rank(rapid.IntRange(0, n-1).Draw(t, "rank")), rapid.Uint32Range(1, 1<<30).Draw(t, "count")}
		cause := Cause{run.Rank, core.Seq(rapid.Uint64().Draw(t, "seq"))}
		if got, rest, ok := DecodeRun(append(AppendRun(nil, run), 9), n); !ok || got != run || len(rest) != 1 {
			t.Fatalf("%v became %v, rest %v", run, got, rest)
		}
		if got, rest, ok := DecodeCause(append(AppendCause(nil, cause), 9), n); !ok || got != cause || len(rest) != 1 {
			t.Fatalf("%v became %v, rest %v", cause, got, rest)
		}
		if _, _, ok := DecodeRun(AppendRun(nil, run), int(run.Rank)); ok {
			t.Fatalf("%v in a view of %d is accepted", run, run.Rank)
		}
		if _, _, ok := DecodeCause(AppendCause(nil, cause), int(run.Rank)); ok {
			t.Fatalf("%v in a view of %d is accepted", cause, run.Rank)
		}
	})
}

// FuzzRecords reads anything as records.
func FuzzRecords(f *testing.F) {
	f.Add(AppendRun(AppendRun(nil, Run{1, 3}), Run{2, 1}))
	f.Add(AppendCause(nil, Cause{2, 1 << 40}))
	f.Fuzz(func(t *testing.T, b []byte) {
		for rest := b; len(rest) > 0; {
			run, more, ok := DecodeRun(rest, 4)
			if !ok {
				break
			}
			if again, _, ok := DecodeRun(AppendRun(nil, run), 4); !ok || again != run || len(more) >= len(rest) {
				t.Fatalf("%v became %v, %d bytes became %d", run, again, len(rest), len(more))
			}
			rest = more
		}
		for rest := b; len(rest) > 0; {
			cause, more, ok := DecodeCause(rest, 4)
			if !ok {
				break
			}
			again, _, ok := DecodeCause(AppendCause(nil, cause), 4)
			if !ok || again != cause || len(more) >= len(rest) {
				t.Fatalf("%v became %v, %d bytes became %d", cause, again, len(rest), len(more))
			}
			rest = more
		}
	})
}

// FuzzGate lets any packets arrive in any order at a gate, ends the view somewhere, and checks each delivery.
func FuzzGate(f *testing.F) {
	f.Add([]byte{1, 0, 3, 1, 0, 0x41, 2, 1, 1, 2, 0, 2, 9})
	f.Add([]byte{0, 1, 0x81, 2, 0, 5, 0, 0x21, 0, 7, 0, 3})
	f.Fuzz(func(t *testing.T, b []byte) {
		const n = 3
		w := newWorld(nil, n)
		next := func() byte {
			if len(b) == 0 {
				return 0
			}
			x := b[0]
			b = b[1:]
			return x
		}
		m := w.members[next()%n]
		delivered := 0
		m.gate.pkts = judged{m, func(r core.Rank, q core.Seq) {
			if delivered++; q != m.delivered[r]+1 || q > m.received[r] {
				t.Fatalf("delivered %d of rank %d behind %d, received to %d", q, r, m.delivered[r], m.received[r])
			}
		}}
		for len(b) > 0 {
			r := core.Rank(next() % n)
			flags := next()
			if !pdu.ValidFlags(flags) {
				flags = pdu.Flags(core.Total)
			}
			size := int(next() % 8)
			payload := b[:min(len(b), size)]
			b = b[len(payload):]
			w.streams[r] = append(w.streams[r], packet{flags, payload})
			if next()%4 == 0 {
				from := m.received[r]
				m.received[r] = w.length(r)
				m.gate.Received(r, from, m.received[r])
				m.gate.Run()
				m.gate.SafeWait()
				m.gate.Causes(nil)
			}
		}
		for r := range w.streams {
			from := m.received[r]
			m.received[r] = w.length(core.Rank(r))
			m.gate.Received(core.Rank(r), from, m.received[r])
		}
		if final := m.gate.Close(m.received); !slices.Equal(final, m.delivered) {
			t.Fatalf("closed at %v, delivered to %v", final, m.delivered)
		}
	})
}

// judged delivers without the checks of a well-behaved world, and with those of the target.
type judged struct {
	*member
	judge func(r core.Rank, q core.Seq)
}

func (j judged) Deliver(r core.Rank, q core.Seq) bool {
	j.judge(r, q)
	j.delivered[r] = q
	return true
}

// A gate in a running view makes nothing new for a packet.
func TestGateDoesNotAllocate(t *testing.T) {
	w := newWorld(nil, 2)
	m := w.members[1]
	m.gate = New(1, 2, m, canary.None)
	w.streams[0] = []packet{{pdu.Flags(core.Total), nil}}
	m.log = make([]name, 0, 1000)
	if n := testing.AllocsPerRun(200, func() {
		w.streams[0] = append(w.streams[0], packet{pdu.Flags(core.Total), nil})
		m.received[0]++
		m.gate.Received(0, m.received[0]-1, m.received[0])
		m.gate.Run()
	}); n > 0 {
		t.Errorf("%v allocations for a packet", n)
	}
	if len(m.log) < 200 {
		t.Errorf("delivered %d", len(m.log))
	}
}

// What nobody holds any more takes with it what it caused, and what that caused in turn, and nothing else.
func TestCloseWithLostCauses(t *testing.T) {
	// rows: MC-09, MC-17
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t, 5)
		survivors := w.members[3:]
		w.members[2].send(pdu.Flags(core.FIFO), nil) // lost: ranks 0 and 1 saw it, and crashed
		w.members[1].send(pdu.Flags(core.FIFO), nil) // 1: before it saw that
		w.members[1].take(2, 1)
		w.members[1].sendCausal() // 2, 3: caused by what is lost
		w.members[1].send(pdu.Flags(core.Total), nil)
		w.members[0].take(2, 1)
		w.members[0].take(1, 4)
		w.members[0].number(1)    // 1
		w.members[0].sendCausal() // 2, 3: caused by rank 1's 3
		cut := []core.Seq{3, 4, 0, 0, 0}
		for _, m := range survivors {
			for r := range core.Rank(2) {
				m.take(r, core.Seq(rapid.IntRange(0, int(cut[r])).Draw(t, "received")))
				if m.delivered[r] > 1 {
					t.Fatalf("member %d delivered to %d of rank %d without its causes", m.self, m.delivered[r], r)
				}
			}
		}
		for _, m := range survivors {
			if final := m.close(cut); !slices.Equal(final, []core.Seq{1, 1, 0, 0, 0}) {
				t.Fatalf("member %d closed at %v", m.self, final)
			}
		}
	})
}
