package main

import (
	"strings"
	"testing"

	"github.com/khamsin-io/khamsin/examples/internal/play"
	"github.com/khamsin-io/khamsin/transports/mem"
	"github.com/khamsin-io/khamsin/vsync"
)

func TestMain(m *testing.M) { play.Main(m, main) }

// The program works as a user starts it.
func TestProgram(t *testing.T) { play.Started(t, "GET /count  -> 200 3 returns: | ") }

// rows: EXA-03, EXA-04
func TestInventory(t *testing.T) {
	text := play.Run(t, run)
	for _, want := range []string{
		"PUT /price/bolt 0.25 -> 204", "GET /price/bolt  -> 200 0.25", "GET /price/gear  -> 404",
		"GET /count  -> 200 3 returns: | ", "| Total processors: ",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing:\n%s", want, text)
		}
	}
}

func TestJoinerHasTheWholeList(t *testing.T) {
	ctx := play.Context(t)
	hub := mem.NewHub()
	start := func() *Replica {
		sys, err := vsync.Start(ctx, play.Options(hub)...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = sys.Close() })
		r, err := NewReplica(ctx, sys)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	first := start()
	products := []string{"bolt", "nut", "gear"}
	for i, p := range products {
		if err := first.group.OrderedSend(ctx, codeSet, p, float64(i)); err != nil {
			t.Fatal(err)
		}
	}
	joiner := start()
	for i, p := range products {
		if price, ok := joiner.get(p); !ok || price != float64(i) {
			t.Errorf("%s: %v, %v", p, price, ok)
		}
	}
}
