package perf

import (
	"os"
	"testing"

	"github.com/khamsin-io/khamsin/bpf"
	"github.com/khamsin-io/khamsin/internal/netns"
)

// Over XDP bulk bytes go past the stack where that is asked for, by UDP where it is not, or where the driver copies.
func TestBulkOverXDP(t *testing.T) {
	needNetns(t)
	netns.Require(t, "xdp", bpf.ProbeDemux())
	t.Setenv(memberFlag, "1")
	for way, past := range map[string]bool{"": false, "driver": false, "udp": false, "xdp": true} {
		o := BulkOptions{
			Receivers: 2, Size: 5_000_001, Objects: 1, Loss: 0.01, Transport: "xdp", XDPBulk: way, Netns: true, Runs: 1,
		}
		r, err := Bulk(bulkContext(t), o, []string{os.Args[0]}, nil)
		if err != nil {
			t.Fatal(err)
		}
		st := r.Receiver
		if !r.Equal || r.Sender.SentPackets == 0 || past != (r.Sender.XDPSent > 0) || past != (st.XDPReceived > 0) {
			t.Errorf("%q: %+v", way, r)
		}
	}
	for _, bad := range []BulkOptions{{XDPBulk: "pigeon", Transport: "xdp"}, {XDPBulk: "xdp", Transport: "udp"}} {
		bad.Receivers, bad.Size, bad.Objects, bad.Runs = 1, 1, 1, 1
		if bad.Validate() == nil {
			t.Errorf("%+v is accepted", bad)
		}
	}
}
