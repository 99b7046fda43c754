package clock

import (
	"testing"
	"time"
)

func TestNeverStaysNever(t *testing.T) {
	if got := Never.Add(time.Hour); got != Never {
		t.Fatalf("Never.Add(1h) = %d, want Never", got)
	}
	if Never.Add(-time.Hour) != Never {
		t.Fatal("Never.Add(-1h) must stay Never")
	}
}

func TestMonotonicNeverZeroNorBackwards(t *testing.T) {
	src := Monotonic()
	last := src.Now()
	if last <= 0 {
		t.Fatalf("first reading is %d, want above 0", last)
	}
	for range 1000 {
		now := src.Now()
		if now < last {
			t.Fatalf("clock went from %d back to %d", last, now)
		}
		last = now
	}
}

func TestManualRefusesToGoBack(t *testing.T) {
	var m Manual
	m.Set(10)
	if m.Now().Sub(4) != 6 {
		t.Fatalf("Sub: got %v, want 6ns", m.Now().Sub(4))
	}
	defer func() {
		if recover() == nil {
			t.Fatal("Set(9) after Set(10) did not panic")
		}
	}()
	m.Set(9)
}
