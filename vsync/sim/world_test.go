package sim

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

// fakeOptions returns a world of fake engines under weather that they can stand.
func fakeOptions(seed uint64, bug fakeBug) Options {
	return Options{
		Seed: seed, Nodes: 4, Groups: 1, Faults: 50 * time.Millisecond,
		Weather: &Weather{
			Delay: 50 * time.Microsecond, Jitter: 200 * time.Microsecond, Reorder: 0.1, ReorderBy: time.Millisecond,
			Duplicate: 0.1, Drift: 500, SlowApps: 0.5, HandleMax: 200 * time.Microsecond,
		},
		Mix: &Mix{
			Interval: time.Millisecond, Burst: 5, Budget: 60, Flavours: [6]int{1, 3, 3, 3, 3, 0}, SizeMax: 300,
			Flush: 0.1, Reply: 0.3, ConsumeBatch: 3,
		},
		engine: (&fakeSystem{bug: bug}).new,
	}
}

func TestFakeWorldKeepsEveryGuarantee(t *testing.T) {
	for seed := range uint64(10) {
		r := Run(fakeOptions(seed, ""))
		if r.Failed() {
			var b strings.Builder
			r.Report(&b)
			t.Fatal(b.String())
		}
		if r.Stats.Delivered < 100 || r.Stats.Messages < 50 {
			t.Fatalf("seed %d: next to nothing happened: %v", seed, r)
		}
	}
}

func TestPlantedBugsAreCaught(t *testing.T) {
	for _, c := range []struct {
		bug     fakeBug
		checker string
	}{
		{bugLeak, checkArena}, {bugTwice, checkDuplicate}, {bugSwap, checkTotal}, {bugMute, checkLiveness},
		{bugPanic, checkInvariant}, {bugForge, checkCreation},
	} {
		caught := false
		for seed := uint64(1); seed <= 20 && !caught; seed++ {
			caught = Run(fakeOptions(seed, c.bug)).Caught(c.checker)
		}
		if !caught {
			t.Errorf("bug %q was not caught by %s", c.bug, c.checker)
		}
	}
}

func TestSameSeedSameTrace(t *testing.T) {
	var one, two bytes.Buffer
	run := func(seed uint64, b *bytes.Buffer) *Result {
		o := fakeOptions(seed, "")
		o.Trace = b
		return Run(o)
	}
	a, b := run(3, &one), run(3, &two)
	if a.TraceHash != b.TraceHash || !bytes.Equal(one.Bytes(), two.Bytes()) {
		t.Fatalf("two runs of seed 3 differ: %v and %v", a, b)
	}
	if c := run(4, new(bytes.Buffer)); c.TraceHash == a.TraceHash {
		t.Fatal("seeds 3 and 4 have the same trace")
	}
	if !strings.Contains(one.String(), "OrderedSend") {
		t.Fatalf("the timeline shows no message:\n%.2000s", one.String())
	}
	o := fakeOptions(3, "")
	if quiet := Run(o); quiet.TraceHash != a.TraceHash {
		t.Fatal("writing the timeline changes the run")
	}
}
