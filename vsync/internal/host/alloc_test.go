package host

import (
	"context"
	"testing"
)

func TestSubmitAndDeliverDoNotAllocate(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	bothModels(t, func(t *testing.T, m Model) {
		r := newRig(t, func(c *Config, _ *fakeEngine, _ *fakeTransport) { c.Model = m })
		got := make(chan struct{}, 1)
		g := r.join("g", &fakeApp{cast: func(context.Context, []byte) { got <- struct{}{} }})
		ctx, head, body := t.Context(), NewHead(1, 1), make([]byte, 100)
		n := testing.AllocsPerRun(2000, func() {
			if err := g.Submit(ctx, 0, head, body); err != nil {
				t.Fatal(err)
			}
			<-got
		})
		if n != 0 {
			t.Errorf("%v allocations per message, want 0", n)
		}
		r.close()
	})
}

func BenchmarkSubmitToOwnHandler(b *testing.B) {
	for _, m := range []Model{Combining, Loop} {
		b.Run(m.String(), func(b *testing.B) {
			r := newRig(b, func(c *Config, _ *fakeEngine, _ *fakeTransport) { c.Model = m })
			got := make(chan struct{}, 1)
			g := r.join("g", &fakeApp{cast: func(context.Context, []byte) { got <- struct{}{} }})
			ctx, body := b.Context(), make([]byte, 64)
			b.ReportAllocs()
			for b.Loop() {
				if err := g.Submit(ctx, 0, Head{}, body); err != nil {
					b.Fatal(err)
				}
				<-got
			}
			r.close()
		})
	}
}

func BenchmarkSubmitParallel(b *testing.B) {
	for _, m := range []Model{Combining, Loop} {
		b.Run(m.String(), func(b *testing.B) {
			r := newRig(b, func(c *Config, _ *fakeEngine, _ *fakeTransport) { c.Model = m })
			g := r.join("g", &fakeApp{})
			body := make([]byte, 64)
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if err := g.Submit(b.Context(), 0, Head{}, body); err != nil {
						b.Error(err)
						return
					}
				}
			})
			r.close()
		})
	}
}
