package detect

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/khamsin-io/khamsin/dataplane/clock"
	"github.com/khamsin-io/khamsin/dataplane/frame"
	"github.com/khamsin-io/khamsin/dataplane/wire"
	"github.com/khamsin-io/khamsin/vsync/core"
	"github.com/khamsin-io/khamsin/vsync/internal/pdu"
)

const (
	interval = 200 * time.Millisecond
	suspect  = 1200 * time.Millisecond
)

func process(i int) core.Address {
	return core.Address{PID: uint32(i), Port: uint16(i), Incarnation: uint64(i)<<32 | uint64(i)}
}

// rig is a detector with its own time.
type rig struct {
	t   *testing.T
	d   *Detector
	out *pdu.Outbox
	now clock.Time
}

func newRig(t *testing.T, chunks int) *rig {
	t.Helper()
	arena, err := frame.New(frame.Config{TxChunks: chunks})
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, out: pdu.NewOutbox(arena, 1400), now: 1}
	r.d = New(Config{Incarnation: 77, Interval: interval, Suspect: suspect}, r.out)
	t.Cleanup(func() {
		r.clear()
		if err := arena.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func (r *rig) clear() {
	for _, p := range r.out.Packets {
		r.out.Arena().Tx().Release(p.Frame)
	}
	r.out.Packets = r.out.Packets[:0]
}

// hear takes a sign of life of a process in.
func (r *rig) hear(i int) {
	r.d.OnLife(r.now, &wire.Header{Kind: wire.KindHeartbeat, View: process(i).Incarnation}, process(i).Endpoint())
}

// run lets time pass and ticks when due; those in living are heard at every tick. It returns who was accused, and when.
func (r *rig) run(span time.Duration, living ...int) (accused []string) {
	for end := r.now.Add(span); r.d.Deadline() <= end; {
		r.now = max(r.now, r.d.Deadline())
		for _, i := range living {
			r.hear(i)
		}
		for _, a := range r.d.Tick(r.now) {
			accused = append(accused, fmt.Sprint(a.Who.PID))
		}
		if r.d.Deadline() <= r.now {
			r.t.Fatalf("the deadline %v is not after %v", r.d.Deadline(), r.now)
		}
		r.clear()
	}
	return accused
}

func assign(epoch uint64, targets ...int) *pdu.Watch {
	w := &pdu.Watch{Epoch: epoch}
	for _, i := range targets {
		w.Targets = append(w.Targets, process(i))
	}
	return w
}

func TestSilenceIsAccusedOnce(t *testing.T) {
	// rows: FD-02
	r := newRig(t, 8)
	r.d.Assign(r.now, assign(1, 1, 2))
	if got := r.run(time.Second, 1, 2); got != nil {
		t.Fatalf("accused %v while they lived", got)
	}
	if got := r.run(suspect-interval, 1); got != nil {
		t.Fatalf("accused %v before the silence was long enough", got)
	}
	if got := r.run(3*interval, 1); !slices.Equal(got, []string{"2"}) {
		t.Fatalf("accused %v after %v of silence", got, suspect+interval)
	}
	if got := r.run(10*suspect, 1); got != nil {
		t.Fatalf("accused %v again", got)
	}
}

// A watcher that did not run itself holds that against nobody.
func TestOwnLatenessDoesNotCount(t *testing.T) {
	r := newRig(t, 8)
	r.d.Assign(r.now, assign(1, 1))
	r.run(time.Second, 1)
	r.now = r.now.Add(10 * suspect) // stopped
	if got := r.d.Tick(r.now); got != nil {
		t.Fatalf("accused %v when the watcher came back", got)
	}
	if got := r.run(suspect - 2*interval); got != nil {
		t.Fatalf("accused %v soon after", got)
	}
	if got := r.run(4 * interval); !slices.Equal(got, []string{"1"}) {
		t.Fatalf("accused %v in the end", got)
	}
}

// Who has been silent for too long is looked at again a little later, when what waits in a queue may have been read.
func TestLooksTwice(t *testing.T) {
	r := newRig(t, 8)
	r.d.Assign(r.now, assign(1, 1))
	r.run(time.Second, 1)
	silentFor := func(d time.Duration) []string {
		r.hear(1)
		return r.run(d)
	}
	for range 3 {
		if got := silentFor(suspect + interval/lookAgain); got != nil {
			t.Fatalf("accused %v at the first look", got)
		}
	}
	if got := silentFor(suspect + interval/lookAgain + 1); !slices.Equal(got, []string{"1"}) {
		t.Fatalf("accused %v at the second", got)
	}
}

// A target that was never heard of may not know its watcher, and gets more time.
func TestNeverHeard(t *testing.T) {
	r := newRig(t, 8)
	r.d.Assign(r.now, assign(1, 1))
	if got := r.run(patience*suspect - interval); got != nil {
		t.Fatalf("accused %v within its patience", got)
	}
	if got := r.run(3 * interval); !slices.Equal(got, []string{"1"}) {
		t.Fatalf("accused %v after it", got)
	}
}

func TestAssignments(t *testing.T) {
	r := newRig(t, 8)
	r.d.Assign(r.now, assign(5, 1, 2))
	r.run(time.Second, 1, 2)
	r.run(suspect / 2) // both silent
	r.d.Assign(r.now, assign(4, 9))
	r.d.Assign(r.now, assign(5))
	if got := r.run(suspect/2-interval, 1); got != nil {
		t.Fatalf("accused %v", got)
	}
	r.d.Assign(r.now, assign(6, 2, 3)) // 2 stays, with its silence; 1 goes; 3 begins
	if got := r.run(3*interval, 3); !slices.Equal(got, []string{"2"}) {
		t.Fatalf("accused %v: a target that stays keeps its history", got)
	}
	before := r.d.Heard
	r.hear(1)
	r.hear(3)
	if r.d.Heard != before+1 {
		t.Errorf("heard %d signs of life, of which one counts", r.d.Heard-before)
	}
	r.d.Assign(r.now, assign(7))
	if got := r.run(10 * suspect); got != nil {
		t.Fatalf("accused %v, whom it does not watch any more", got)
	}
}

func TestSignsOfLife(t *testing.T) {
	// rows: FD-01
	r := newRig(t, 2)
	if r.d.Deadline() != clock.Never || r.d.Tick(r.now) != nil {
		t.Fatal("something to do without an assignment")
	}
	r.d.Assign(r.now, &pdu.Watch{Epoch: 1, Watchers: []core.Address{process(1), process(2), process(3)}})
	r.d.Tick(r.now)
	if len(r.out.Packets) != 2 || r.d.Sent != 2 || r.out.Starved != 1 {
		t.Fatalf("%d packets, %d sent, %d starved of two frames", len(r.out.Packets), r.d.Sent, r.out.Starved)
	}
	for i, p := range r.out.Packets {
		var h wire.Header
		to := process(i + 1)
		if err := h.Decode(r.out.Arena().Bytes(p.Frame)); err != nil || h.Kind != wire.KindHeartbeat || h.View != 77 ||
			h.Rank != uint32(to.Incarnation) || p.To != to.Endpoint() {
			t.Errorf("sign of life %+v to %v, error %v", h, p.To, err)
		}
	}
	r.clear()
	if r.d.Deadline() != r.now.Add(interval) {
		t.Errorf("next at %v, now %v", r.d.Deadline(), r.now)
	}
	if r.d.Tick(r.now.Add(interval-1)) != nil || len(r.out.Packets) != 0 {
		t.Error("signs of life before they are due")
	}
}

// answer makes a process answer the last question.
func (r *rig) answer(i int) {
	r.d.OnLife(r.now, &wire.Header{
		Kind: wire.KindHeartbeat, Flags: flagAnswer, View: process(i).Incarnation, Seq: r.d.question,
	}, process(i).Endpoint())
}

// A process whose line is closed, and that does not answer, is accused at once.
//
// rows: FD-02
func TestClosedLineIsAccusedSoon(t *testing.T) {
	r := newRig(t, 8)
	r.d.Assign(r.now, assign(1, 1, 2))
	r.run(time.Second, 1, 2)
	r.d.OnClosed(r.now, process(2).Incarnation)
	r.d.OnClosed(r.now, process(9).Incarnation) // watched by somebody else
	if got := r.run(asks*askEvery - 1); got != nil {
		t.Fatalf("accused %v before the last question was given its time", got)
	}
	r.d.OnClosed(r.now, process(2).Incarnation) // again
	if got := r.run(askEvery); !slices.Equal(got, []string{"2"}) {
		t.Fatalf("accused %v after %v", got, asks*askEvery)
	}
	r.d.OnClosed(r.now, process(2).Incarnation)
	if got := r.run(suspect-interval, 1); got != nil {
		t.Fatalf("accused %v again", got)
	}
}

// A process whose line is closed is asked, and not accused when it answers this question, or when its line opens again.
func TestClosedLineOfALivingProcess(t *testing.T) {
	for name, live := range map[string]func(r *rig){ // order-free: independent cases
		"answers":         func(r *rig) { r.answer(1) },
		"is there again":  func(r *rig) { r.d.OnOpen(r.now, process(1).Incarnation) },
		"is not assigned": func(r *rig) { r.d.Assign(r.now, assign(2, 3)) },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, 8)
			r.d.Assign(r.now, assign(1, 1))
			r.run(time.Second, 1)
			r.d.OnClosed(r.now, process(1).Incarnation)
			var h wire.Header
			p := r.out.Packets[len(r.out.Packets)-1]
			err := h.Decode(r.out.Arena().Bytes(p.Frame))
			if err != nil || h.Flags != flagAsk || p.To != process(1).Endpoint() {
				t.Fatalf("question %+v to %v, error %v", h, p.To, err)
			}
			r.run(askEvery)
			live(r)
			if got := r.run(suspect-interval, 3); got != nil {
				t.Fatalf("accused %v", got)
			}
		})
	}
	r := newRig(t, 8)
	r.d.Assign(r.now, assign(1, 1))
	r.run(time.Second, 1)
	r.d.OnClosed(r.now, process(1).Incarnation)
	if got := r.run(asks*askEvery, 1); !slices.Equal(got, []string{"1"}) {
		t.Fatalf("accused %v: signs of life that were under way are no answers", got)
	}
}

// A watcher that is late itself asks again before it accuses: the answer may lie in its own socket.
func TestLateQuestionsDoNotCount(t *testing.T) {
	r := newRig(t, 8)
	r.d.Assign(r.now, assign(1, 1))
	r.run(time.Second, 1)
	r.d.OnClosed(r.now, process(1).Incarnation)
	for range 2 * asks {
		r.now = r.now.Add(10 * askEvery)
		if got := r.d.Tick(r.now); got != nil {
			t.Fatalf("accused %v by a watcher that was late", got)
		}
		r.clear()
	}
	if got := r.run(asks * askEvery); !slices.Equal(got, []string{"1"}) {
		t.Fatalf("accused %v in the end", got)
	}
}

// Who is asked for a sign of life gives one, with the number of the question. It costs one packet.
func TestAnswersQuestions(t *testing.T) {
	r := newRig(t, 8)
	asker := process(5)
	r.d.OnLife(r.now, &wire.Header{Kind: wire.KindHeartbeat, Flags: flagAsk, View: asker.Incarnation, Seq: 42},
		asker.Endpoint())
	if len(r.out.Packets) != 1 {
		t.Fatalf("%d packets", len(r.out.Packets))
	}
	var h wire.Header
	p := r.out.Packets[0]
	if err := h.Decode(r.out.Arena().Bytes(p.Frame)); err != nil || h.Flags != flagAnswer || h.Seq != 42 ||
		h.Rank != uint32(asker.Incarnation) || p.To != asker.Endpoint() {
		t.Errorf("answer %+v to %v, error %v", h, p.To, err)
	}
}

// A line to a target is asked for when it says where, once, and given up with the target.
func TestLinesFollowTheAssignment(t *testing.T) {
	r := newRig(t, 8)
	r.d.Assign(r.now, assign(1, 1, 2))
	life := wire.Header{Kind: wire.KindHeartbeat, View: process(1).Incarnation, Group: 700}
	r.d.OnLife(r.now, &life, process(1).Endpoint())
	r.d.OnLife(r.now, &life, process(1).Endpoint())
	life.View, life.Group = process(2).Incarnation, 1<<16 // no port
	r.d.OnLife(r.now, &life, process(2).Endpoint())
	r.d.Assign(r.now, assign(2, 2))
	if want := []Line{{process(1), 700}, {To: process(1)}}; !slices.Equal(r.d.Lines, want) {
		t.Errorf("lines %v, want %v", r.d.Lines, want)
	}
}

// What a process sends in an interval does not grow with the system.
//
// rows: FD-01
func TestSignsOfLifePerInterval(t *testing.T) {
	r := newRig(t, 64)
	w := assign(1, 1, 2)
	w.Watchers = []core.Address{process(3), process(4)}
	r.d.Assign(r.now, w)
	r.run(time.Second, 1, 2)
	if most := uint64(2 * (time.Second/interval + 1)); r.d.Sent > most {
		t.Errorf("%d signs of life in a second, want at most %d", r.d.Sent, most)
	}
}
