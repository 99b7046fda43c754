//go:build cgo && rdma

package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/khamsin-io/khamsin/cmd/khamsin/internal/objects"
	"github.com/khamsin-io/khamsin/oob"
	"github.com/khamsin-io/khamsin/perf"
)

// rdmaInterface returns the interface of the device that the environment names. Without one the test is skipped, or
// fails where it must not be.
func rdmaInterface(t *testing.T) string {
	t.Helper()
	device := os.Getenv("KHAMSIN_RDMA_DEV")
	if device == "" {
		if slices.Contains(strings.Split(os.Getenv("KHAMSIN_REQUIRE"), ","), "rdma") {
			t.Fatal("no RDMA device, which KHAMSIN_REQUIRE demands: KHAMSIN_RDMA_DEV is not set")
		}
		t.Skip("no RDMA device: KHAMSIN_RDMA_DEV is not set")
	}
	name, err := os.ReadFile(filepath.Join("/sys/class/infiniband", device, "ports/1/gid_attrs/ndevs/0"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(name))
}

// patientConfig lets members be silent for longer, where the processor is emulated.
const patientConfig = "heartbeat = \"250ms\"\nsuspect_after = \"5s\"\n"

// Daemons that were told no more than the transport write objects from memory to memory.
//
// rows: FUT-04
func TestRDMADaemons(t *testing.T) {
	const size = 16_000_001
	config := filepath.Join(t.TempDir(), "khamsin.toml")
	if err := os.WriteFile(config, []byte(patientConfig), 0o600); err != nil {
		t.Fatal(err)
	}
	d := startDaemons(t, 3, "--transport", "rdma", "--interface", rdmaInterface(t), "--config", config)
	a, b, c := d.all[0], d.all[1], d.all[2]
	path, want := d.file("f", size)
	d.must(a, "put", path)
	var m objects.Moved
	d.json(b, &m, "replicate", "f", "--to", "all")
	if m.Holders != 3 || m.Digest != oob.Digest(want) {
		t.Errorf("replicate: %+v", m)
	}
	for _, on := range []*daemon{b, c} {
		got := filepath.Join(d.dir, "got by "+on.name)
		d.json(on, &m, "get", "f", got)
		if b, err := os.ReadFile(got); err != nil || !bytes.Equal(b, want) || m.Digest != oob.Digest(want) {
			t.Errorf("the file that get wrote differs: %v, %+v", err, m)
		}
	}
	var written uint64
	for i, on := range d.all {
		var s objects.Status
		d.json(on, &s, "status")
		st, landed := &s.Stats, uint64(size)
		if i == 0 {
			landed = 0
		}
		if s.Transport != "rdma" || st.LandedBytes != landed || st.Unsided != 0 || st.ReceivedPackets != 0 ||
			st.LinkReceived > size/50 {
			t.Errorf("daemon %s over %s: %+v", on.name, s.Transport, st)
		}
		written += st.WrittenBytes
		t.Logf("MEASURED: daemon %s wrote %d bytes in %d writes, %d bytes were written here, %d came by TCP", on.name,
			st.WrittenBytes, st.Writes, st.LandedBytes, st.LinkReceived)
	}
	if written != 2*size {
		t.Errorf("%d bytes were written, want %d", written, 2*size)
	}
	if out := d.must(c, "status"); !strings.Contains(out, " over rdma, ") ||
		!strings.Contains(out, "written from memory to memory: ") {
		t.Errorf("status: %s", out)
	}
}

// Processes over RDMA agree, though one of them is killed and another one joins.
func TestRDMADemo(t *testing.T) {
	t.Setenv("ISIS_NETWORK_INTERFACES", rdmaInterface(t))
	out, err := program(t, "demo", "--transport", "rdma", "--members", "3", "--seed", "1", "--suspect-after", "5s")
	if err != nil || !strings.Contains(out, "AGREE: 3 members") || !strings.Contains(out, "1 killed, 1 joined") {
		t.Errorf("%v", err)
	}
	t.Log(out)
}

// The measurement of bulk objects goes over RDMA too, from memory to memory.
//
// rows: FUT-04
func TestRDMAPerfBulk(t *testing.T) {
	const size, receivers = 16 << 20, 2
	t.Setenv("ISIS_NETWORK_INTERFACES", rdmaInterface(t))
	var r perf.BulkResult
	measured(t, &r, "perf", "bulk", "--transport", "rdma", "--receivers", "2", "--size", "16777216", "--json")
	if !r.Equal || r.Written != receivers*size || r.WireRatio < receivers || r.WireRatio > receivers+0.1 ||
		r.Sender.WrittenBytes != size || r.Receiver.LandedBytes != size || r.Sender.Unsided+r.Receiver.Unsided != 0 {
		t.Errorf("%+v", r)
	}
	t.Logf("MEASURED: digests_equal %v, written_bytes %d, wire_ratio %.4f, %.2f s (emulated)", r.Equal, r.Written,
		r.WireRatio, r.Seconds)
}

// Messages are measured over RDMA too, whichever way members wait for packets.
func TestRDMAPerfLocal(t *testing.T) {
	t.Setenv("ISIS_NETWORK_INTERFACES", rdmaInterface(t))
	for _, waiting := range []string{"adaptive", "block", "busy"} {
		var r perf.Result
		measured(t, &r, "perf", "local", "--transport", "rdma", "--members", "2", "--waiting", waiting, "--rate", "200",
			"--seconds", "2", "--no-floor", "--json")
		if r.Lost != 0 || r.Duplicated != 0 || r.DeliveredMin < 40 {
			t.Errorf("%s: %+v", waiting, r)
		}
		t.Logf("MEASURED: %s: %.0f messages a second of 400, p50 %.0f µs (emulated)", waiting, r.DeliveredMin,
			r.Latency.P50)
	}
}

// measured runs a command that measures, and reads its result.
func measured(t *testing.T, result any, args ...string) {
	t.Helper()
	out, err := program(t, args...)
	_, text, _ := strings.Cut(out, "{") // before it the command said what it was doing
	if err == nil {
		err = json.NewDecoder(strings.NewReader("{" + text)).Decode(result)
	}
	if err != nil {
		t.Fatalf("%v: %v: %s", args, err, out)
	}
}
