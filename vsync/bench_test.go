package vsync

import (
	"testing"

	"github.com/khamsin-io/khamsin/transports/mem"
)

// benchGroups returns the groups of two systems that handle values, bytes and queries.
func benchGroups(b *testing.B, got chan struct{}) []*Group {
	hub := mem.NewHub()
	var groups []*Group
	for range 2 {
		g := startOn(b, hub).NewGroup("g")
		must(Handle1(g, 1, func(_ *Message, v int64) { got <- struct{}{} }))
		must(g.Handle(2, func(v int64) { got <- struct{}{} }))
		must(g.Handle(3, func(*Message) { got <- struct{}{} }))
		must(Answer1(g, 4, func(_ *Message, v int64) (int64, error) { return v + 1, nil }))
		must(g.Join(within(b)))
		groups = append(groups, g)
	}
	if _, err := groups[0].WaitForSize(within(b), 2); err != nil {
		b.Fatal(err)
	}
	return groups
}

// One message to two members and its handling at both, before the next one is sent.
func BenchmarkMessage(b *testing.B) {
	got := make(chan struct{}, 2)
	g, ctx := benchGroups(b, got)[0], within(b)
	payload := make([]byte, 8)
	for _, c := range []struct {
		name string
		send func() error
	}{
		{"bytes", func() error { return g.SendBytes(ctx, FIFO, 3, payload) }},
		{"typed", func() error { return Send1(ctx, g, 1, int64(1)<<40) }},
		{"reflection", func() error { return g.Send(ctx, 2, int64(1)<<40) }},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				must(c.send())
				<-got
				<-got
			}
		})
	}
}

// One query to two members, and one to a single member.
func BenchmarkQuery(b *testing.B) {
	groups := benchGroups(b, nil)
	ctx, to := within(b), groups[1].sys.Address()
	b.Run("all", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if r, err := Query[int64](ctx, groups[0], All, 4, int64(1)); err != nil || r.Len() != 2 {
				b.Fatal(r, err)
			}
		}
	})
	b.Run("one", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := Ask[int64](ctx, groups[0], to, 4, int64(1)); err != nil {
				b.Fatal(err)
			}
		}
	})
}
