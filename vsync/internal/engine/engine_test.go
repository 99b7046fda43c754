package engine

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/khamsin-io/khamsin/vsync/core"
)

func form(t *testing.T, n int) (*net, []Handle) {
	t.Helper()
	w := newNet(t, n)
	w.run(time.Second)
	hs := make([]Handle, n)
	for i, x := range w.nodes {
		hs[i] = x.e.Join(w.now, JoinRequest{Name: "inventory"})
		x.collect()
	}
	w.run(200 * time.Millisecond)
	for i, x := range w.nodes {
		v := x.e.View(hs[i])
		if v == nil || v.Size() != n {
			t.Fatalf("node %d: view %v, events %v", x.id, v, x.events)
		}
	}
	return w, hs
}

func TestFormGroup(t *testing.T) {
	form(t, 3)
}

func onlyMessages(list []string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(s string) bool { return strings.HasPrefix(s, "view ") })
}

func TestTotalOrderUnderLoss(t *testing.T) {
	for _, f := range []core.Flavour{core.FIFO, core.Causal, core.Total, core.Safe, core.Unordered} {
		t.Run(f.String(), func(t *testing.T) {
			w, hs := form(t, 3)
			w.loss = 0.1
			for i := range 100 {
				for j, x := range w.nodes {
					size := 10
					if i%17 == 0 {
						size = 5000
					}
					msg := fmt.Sprintf("%d-%d %s", x.id, i, strings.Repeat("x", size))
					if r := x.e.Submit(w.now, hs[j], f, nil, []byte(msg)); r != Accepted {
						t.Fatalf("submit: %v", r)
					}
					x.collect()
				}
				w.run(100 * time.Microsecond)
			}
			w.run(2 * time.Second)
			want := onlyMessages(w.nodes[0].msgs)
			if len(want) != 300 {
				t.Fatalf("node 1 delivered %d of 300", len(want))
			}
			for _, x := range w.nodes[1:] {
				got := onlyMessages(x.msgs)
				if f.Ordered() && !slices.Equal(got, want) {
					t.Errorf("node %d: other order", x.id)
				}
				if len(got) != 300 {
					t.Errorf("node %d delivered %d of 300", x.id, len(got))
				}
			}
		})
	}
}

func TestCrashAndJoin(t *testing.T) {
	w, hs := form(t, 4)
	w.loss = 0.05
	for i := range 200 {
		for j, x := range w.nodes {
			if x.dead {
				continue
			}
			x.e.Submit(w.now, hs[j], core.Total, nil, []byte(fmt.Sprintf("%d-%d", x.id, i)))
			x.collect()
		}
		w.run(100 * time.Microsecond)
		switch i {
		case 50:
			w.nodes[1].dead = true
		case 100:
			w.add()
			hs = append(hs, 0)
			w.run(300 * time.Millisecond)
			hs[4] = w.nodes[4].e.Join(w.now, JoinRequest{Name: "inventory"})
			w.nodes[4].collect()
		}
	}
	w.run(5 * time.Second)
	a, b := w.nodes[0], w.nodes[2]
	if !slices.Equal(a.msgs, b.msgs) {
		t.Errorf("nodes 1 and 3 differ: %d and %d deliveries", len(a.msgs), len(b.msgs))
	}
	v := a.e.View(hs[0])
	if v.Size() != 4 {
		t.Errorf("last view %v", v)
	}
	j := w.nodes[4]
	if len(j.views) == 0 || len(j.state) == 0 {
		t.Fatalf("joiner: views %v state %v events %v", j.views, j.state, j.events)
	}
	at := slices.Index(a.msgs, j.msgs[0])
	if !slices.Equal(a.msgs[at:], j.msgs) {
		t.Errorf("joiner's sequence differs from node 1's since %q", j.msgs[0])
	}
	if want := fmt.Sprintf("%d messages", at); j.state[0] != want {
		t.Errorf("joiner got the state %q, want %q", j.state[0], want)
	}
}
