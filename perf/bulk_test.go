package perf

import (
	"context"
	"os"
	"testing"
	"time"
)

func bulkContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// rows: FUT-06
func TestBulk(t *testing.T) {
	t.Setenv(memberFlag, "1")
	for _, o := range []BulkOptions{
		{Receivers: 2, Size: 5_000_001, Objects: 1, Transport: "udp", Runs: 2, Loss: 0.05},
		{Receivers: 2, Size: 3_000_000, Objects: 20, Transport: "tcp", Runs: 1, Transfers: 2, Traffic: true},
	} {
		r, err := Bulk(bulkContext(t), o, []string{os.Args[0]}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if !r.Equal || r.Seconds <= 0 || r.Rate <= 0 || r.WireRatio < 1 || r.Floor.Rate <= 0 || len(r.Each) != o.Runs {
			t.Errorf("%+v", r)
		}
		if o.Traffic && (r.Idle.Count == 0 || r.Busy.Count == 0 || r.Busy.P99 < r.Busy.P50) {
			t.Errorf("ordered messages alone %+v, beside transfers %+v", r.Idle, r.Busy)
		}
	}
	all, err := FindBulk(bulkContext(t), BulkOptions{Receivers: 1, Size: 1 << 20, Objects: 1, Runs: 1},
		[]string{os.Args[0]}, nil)
	if err != nil || len(all) != 2 || all[0].Seconds > all[1].Seconds {
		t.Errorf("%+v %v", all, err)
	}
	bad := BulkOptions{Receivers: 0, Size: 0, Objects: 0, Loss: 2, Transport: "pigeon", Megabits: 1, Runs: 0,
		Spare: -1}
	if _, err := Bulk(bulkContext(t), bad, []string{os.Args[0]}, nil); err == nil {
		t.Error("bad options are accepted")
	}
}
