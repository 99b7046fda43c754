package vsync

import (
	"context"
	"slices"
	"testing"
	"time"
)

// rows: THR-20
func TestOffload(t *testing.T) {
	gate := make(chan struct{})
	var got []int
	o := NewOffload(3, func(n int) {
		<-gate
		got = append(got, n)
	})
	ctx := within(t)
	must(o.Put(ctx, 0))
	for end := time.Now().Add(patience); o.Len() > 0 && time.Now().Before(end); time.Sleep(time.Millisecond) {
	}
	for n := 1; n < 4; n++ { // one with the worker, three in the buffer
		must(o.Put(ctx, n))
	}
	short, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
	defer cancel()
	wantErr(t, "full", o.Put(short, 4), context.DeadlineExceeded)
	waiting := make(chan error)
	go func() { waiting <- o.Put(ctx, 4) }()
	close(gate)
	must(take(t, waiting))
	must(o.Put(ctx, 5))
	o.Close()
	o.Close()
	if !slices.Equal(got, []int{0, 1, 2, 3, 4, 5}) {
		t.Errorf("got %v", got)
	}
	wantErr(t, "closed", o.Put(ctx, 6), ErrNotRunning)
}
