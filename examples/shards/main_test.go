package main

import (
	"strings"
	"testing"

	"github.com/khamsin-io/khamsin/examples/internal/play"
	"github.com/khamsin-io/khamsin/vsync"
)

func TestMain(m *testing.M) { play.Main(m, main) }

// The program works as a user starts it.
func TestProgram(t *testing.T) { play.Started(t, "the first shard did not change") }

// rows: EXA-15
func TestShards(t *testing.T) {
	want := "with all members: 3 3 2\none less: 3 3 1\nthe first shard did not change\n"
	if text := play.Run(t, run); !strings.EqualFold(text, want) {
		t.Errorf("got\n%s", text)
	}
}

func TestPlan(t *testing.T) {
	view := func(id vsync.ViewID, members ...uint64) *vsync.View {
		v := &vsync.View{ID: id}
		for _, m := range members {
			v.Members = append(v.Members, vsync.Address{Incarnation: m})
		}
		return v
	}
	p := Plan{}.next(view(1, 1, 2, 3, 4, 5, 6, 7))
	q := p.next(view(2, 1, 2, 3, 5, 6, 7, 8)) // 4 fails, 8 is new and takes its place
	for i := range 2 {
		for _, a := range q.Shards[i].Members {
			if a.Incarnation != 8 && !has(p.Shards[i], a) {
				t.Errorf("%v moved: %v, %v", a, p, q)
			}
		}
	}
	if len(q.Shards) != 3 || !has(q.Shards[1], vsync.Address{Incarnation: 8}) || q.View != 2 {
		t.Errorf("got %v", q)
	}
	if r := q.next(view(3, 1, 8)); r.size() != 2 || len(r.Shards) != 1 {
		t.Errorf("got %v", r)
	}
	if r := q.next(view(4)); r.size() != 0 || len(r.Shards) > 1 {
		t.Errorf("got %v", r)
	}
}

func has(s Shard, a vsync.Address) bool {
	for _, m := range s.Members {
		if m == a {
			return true
		}
	}
	return false
}
