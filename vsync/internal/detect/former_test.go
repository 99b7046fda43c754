package detect

import (
	"slices"
	"testing"
	"time"

	"github.com/khamsin-io/khamsin/dataplane/clock"
	"github.com/khamsin-io/khamsin/dataplane/frame"
	"github.com/khamsin-io/khamsin/vsync/core"
	"github.com/khamsin-io/khamsin/vsync/internal/pdu"
)

func address(n int) core.Address {
	return core.Address{PID: uint32(n), Port: uint16(n), Incarnation: uint64(n)}
}

// A watcher that was relieved still gets signs of life for a while, since it may not know yet, and then none any more.
func TestRelievedWatchersHearOnForAWhile(t *testing.T) {
	arena, err := frame.New(frame.Config{ChunkSize: 2048, TxChunks: 64, RxRuns: 1, RunChunks: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer arena.Close()
	out := pdu.NewOutbox(arena, 1472)
	d := New(Config{Incarnation: 1, Interval: 10 * time.Millisecond, Suspect: 50 * time.Millisecond}, out)
	beats := func(now clock.Time) []int {
		d.Tick(now)
		var to []int
		for _, p := range out.Packets {
			to = append(to, int(p.To.Port))
			arena.Release(p.Frame)
		}
		out.Packets = out.Packets[:0]
		return to
	}
	for _, step := range []struct {
		at       time.Duration
		watchers []core.Address // assigned now; nil: none
		want     []int
	}{
		{0, []core.Address{address(2), address(3)}, []int{2, 3}},
		{10 * time.Millisecond, []core.Address{address(3), address(4)}, []int{3, 4, 2}},
		{100 * time.Millisecond, nil, []int{3, 4, 2}},
		{110 * time.Millisecond, []core.Address{address(2), address(4)}, []int{2, 4, 3}}, // back, and another relieved
		{250 * time.Millisecond, nil, []int{2, 4, 3}},
		{300 * time.Millisecond, nil, []int{2, 4}},
	} {
		now := clock.Time(step.at)
		if step.watchers != nil {
			d.Assign(now, &pdu.Watch{Epoch: uint64(step.at) + 1, Watchers: step.watchers})
		}
		if got := beats(now); !slices.Equal(got, step.want) {
			t.Errorf("at %v signs of life go to %v, want %v", step.at, got, step.want)
		}
	}
}
