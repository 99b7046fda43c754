package flush

import (
	"slices"
	"testing"

	"github.com/khamsin-io/khamsin/vsync/core"
	"github.com/khamsin-io/khamsin/vsync/internal/pdu"
)

// stateCase is a change of a view of three, ranks 0 to 2, all of whom survive.
type stateCase struct {
	name      string
	has       []int       // who has the group's state
	receiving map[int]int // who is receiving it, and from whom
	leave     []int
	join      []int

	source    int // -1: none
	stateless []int
	keep      int // -1: nobody
}

// Who makes the state for whom follows from what the members reported.
func TestSourceOfState(t *testing.T) {
	// rows: XFR-06, XFR-12
	for _, c := range []stateCase{
		{"rank 0 makes it", []int{0, 1, 2}, nil, nil, []int{3, 4}, 0, []int{3, 4}, -1},
		{"nobody needs it", []int{0, 1, 2}, nil, []int{0}, nil, 1, nil, -1},
		{"the lowest that stays makes it", []int{0, 1, 2}, nil, []int{0}, []int{3}, 1, []int{3}, -1},
		{"who receives it goes on", []int{0, 1}, map[int]int{2: 0}, nil, []int{3}, 0, []int{3}, -1},
		{"who received it from one that leaves begins anew", []int{0, 1}, map[int]int{2: 0}, []int{0}, nil, 1,
			[]int{2}, -1},
		{"nobody has it: the eldest makes a new one", nil, nil, nil, []int{3}, 0, []int{1, 2, 3}, -1},
		{"the last one with state may not go yet", []int{0}, map[int]int{1: 0}, []int{0}, nil, -1, nil, 0},
		{"the first of those with state stays", []int{1, 2}, nil, []int{1, 2}, nil, -1, nil, 1},
		{"unless everyone goes", []int{0}, nil, []int{0, 1, 2}, nil, -1, nil, -1},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t) })
	}
}

func (c *stateCase) run(t *testing.T) {
	base := &pdu.Decision{Name: "g", View: &core.View{ID: 1, Members: processes(0, 1, 2)}}
	gone := map[core.Address]bool{}
	for _, i := range c.leave {
		gone[process(i)] = true
	}
	p := &pdu.Propose{Base: base, Next: base.View.Next(2, gone, processes(c.join...)), Flushers: processes(0, 1, 2)}
	co := NewCoordinator(p, 0)
	for i := range 3 {
		if keep := co.Keep(); i == 0 && !keep.IsZero() {
			t.Fatalf("keeps %v before anyone reported", keep)
		}
		rep := &pdu.Report{Next: 2, Holdings: make([]pdu.Holding, 3), HasState: slices.Contains(c.has, i)}
		if from, ok := c.receiving[i]; ok {
			rep.Source = process(from)
		}
		co.OnReport(process(i), rep)
	}
	want := core.NoAddress
	if c.keep >= 0 {
		want = process(c.keep)
	}
	if got := co.Keep(); got != want {
		t.Fatalf("keeps %v, want %v", got, want)
	}
	if c.keep >= 0 {
		return
	}
	var d *pdu.Decision
	for i := range 3 {
		if late := co.Late(); len(late) != 3-i {
			t.Errorf("late: %v when %d are ready", late, i)
		}
		d = co.OnReady(process(i), &pdu.Ready{Next: 2})
	}
	source := core.NoAddress
	if c.source >= 0 {
		source = process(c.source)
	}
	if d == nil || d.Source != source || !slices.Equal(d.Stateless, processes(c.stateless...)) {
		t.Errorf("decided %+v, want the source %v for %v", d, source, c.stateless)
	}
}

// The coordinator hears nobody's readiness before there is a cut.
func TestReadyBeforeTheCut(t *testing.T) {
	base := &pdu.Decision{Name: "g", View: &core.View{ID: 1, Members: processes(0)}}
	p := &pdu.Propose{Base: base, Next: base.View.Next(2, nil, nil), Flushers: processes(0)}
	co := NewCoordinator(p, 5)
	if co.Due != 5 || co.Proposal() != p {
		t.Errorf("due %v, proposal %v", co.Due, co.Proposal())
	}
	if d := co.OnReady(process(0), &pdu.Ready{Next: 2}); d != nil {
		t.Errorf("decided %v", d)
	}
}

// FuzzFlush lets any reports and readies arrive at a coordinator, and its cut at a member.
func FuzzFlush(f *testing.F) {
	report := &pdu.Report{Next: 2, Holdings: []pdu.Holding{
		{ReceivedTo: 3}, {ReceivedTo: 1, Islands: []pdu.Island{{First: 3, Last: 4}}}, {},
	}}
	f.Add(pdu.Encode(pdu.TypeReport, report), []byte{0, 1, 2, 3, 4, 5})
	f.Add(pdu.Encode(pdu.TypeReport, &pdu.Report{Next: 2, Holdings: make([]pdu.Holding, 3)}), []byte{1, 1, 2, 0})
	f.Fuzz(func(t *testing.T, b []byte, steps []byte) {
		base := &pdu.Decision{Name: "g", View: &core.View{ID: 1, Members: processes(0, 1, 2)}}
		p := &pdu.Propose{Base: base, Next: base.View.Next(2, nil, nil), Flushers: processes(0, 2)}
		co := NewCoordinator(p, 0)
		var cut *pdu.Cut
		for _, s := range steps {
			from := process(int(s % 4))
			if s&4 == 0 {
				m := new(pdu.Report)
				if pdu.Decode(m, b[min(len(b), 1):]) != nil {
					continue
				}
				if s&8 != 0 && len(m.Holdings) == 3 {
					m.Holdings[0] = pdu.Holding{}
				}
				if c := co.OnReport(from, m); c != nil {
					cut = c
				}
			} else if d := co.OnReady(from, &pdu.Ready{Next: core.ViewID(s >> 6)}); d != nil &&
				(cut == nil || len(d.Cut) != 3) {
				t.Fatalf("decided %+v, cut %+v", d, cut)
			}
		}
		if cut == nil {
			return
		}
		again := new(pdu.Cut)
		if err := pdu.Decode(again, pdu.Encode(pdu.TypeCut, cut)[1:]); err != nil {
			t.Fatalf("nobody can read the cut %+v", cut)
		}
		for r, q := range cut.Cut {
			at := core.Seq(0)
			for _, s := range cut.Segments[r] {
				if s.Last <= at || s.Holder != 0 && s.Holder != 2 {
					t.Fatalf("segments %v of rank %d", cut.Segments[r], r)
				}
				at = s.Last
			}
			if len(cut.Segments[r]) > 0 && at != q {
				t.Fatalf("segments %v of rank %d end at %d, the cut at %d", cut.Segments[r], r, at, q)
			}
		}
	})
}
