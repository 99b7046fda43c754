package perf

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/khamsin-io/khamsin/bpf"
	"github.com/khamsin-io/khamsin/internal/netns"
)

// The comparison of AF_XDP receivers gets packets by each way, and never more than were sent.
func TestXDPBaseline(t *testing.T) {
	if testing.Short() {
		t.Skip("a comparison of speeds: the long run makes it")
	}
	needNetns(t)
	netns.Require(t, "xdp", bpf.ProbeDemux())
	t.Setenv(memberFlag, "1")
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	list, err := MeasureXDP(ctx, []string{os.Args[0]})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	for _, w := range list {
		if w.Missing != "" || w.Messages <= 0 || w.Messages > w.Sent || w.Processor <= 0 {
			t.Errorf("%+v", w)
		}
		seen[w.Way]++
	}
	if seen[wayXDP] != 2 || seen[wayUDP] != 2 || seen[wayOther] != 2 {
		t.Errorf("ways %v, want each with two sizes", seen)
	}
}
