//go:build cgo && rdma

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/khamsin-io/khamsin/cmd/khamsin/internal/objects"
	"github.com/khamsin-io/khamsin/dataplane/transporttest"
	"github.com/khamsin-io/khamsin/oob"
	"github.com/khamsin-io/khamsin/perf"
)

// patientConfig lets members be silent for longer, where the processor is emulated.
const patientConfig = "heartbeat = \"250ms\"\nsuspect_after = \"5s\"\n"

// rdmaDaemons starts three daemons over RDMA.
func rdmaDaemons(t *testing.T) *daemons {
	t.Helper()
	config := filepath.Join(t.TempDir(), "khamsin.toml")
	if err := os.WriteFile(config, []byte(patientConfig), 0o600); err != nil {
		t.Fatal(err)
	}
	return startDaemons(t, 3, "--transport", "rdma", "--interface", transporttest.RDMAInterface(t), "--config", config)
}

// status asks a daemon itself, which is quicker than a client's process.
func (d *daemons) status(on *daemon) (s objects.Status) {
	d.t.Helper()
	c, err := objects.Dial(on.socket)
	if err != nil {
		d.t.Fatal(err)
	}
	if err := errors.Join(c.Call(d.t.Context(), "status", nil, &s, nil), c.Close()); err != nil {
		d.t.Fatal(err)
	}
	return s
}

// Daemons that were told no more than the transport write objects from memory to memory.
//
// rows: FUT-04
func TestRDMADaemons(t *testing.T) {
	const size = 16_000_001
	d := rdmaDaemons(t)
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
		s := d.status(on)
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

// A daemon that is killed in the middle of its writes is replaced by the other one that has the object.
//
// rows: FUT-04, OOB-42
func TestRDMADaemonIsKilled(t *testing.T) {
	const size = 64 << 20
	d := rdmaDaemons(t)
	c := d.all[2]
	path, want := d.file("f", size)
	d.must(d.all[0], "put", path, "--to", "#0", "--to", "#1")
	before := []uint64{d.status(d.all[0]).Stats.WrittenBytes, d.status(d.all[1]).Stats.WrittenBytes}
	replicate := d.command("replicate", "f", "--to", "all", "--name", c.name)
	if err := replicate.Start(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(daemonsPatience); d.status(c).Stats.LandedBytes < size/8; {
		if time.Now().After(deadline) {
			t.Fatalf("nothing is written: %+v", d.status(c))
		}
	}
	source, other := 0, 1
	if d.status(d.all[1]).Stats.WrittenBytes > before[1] {
		source, other = 1, 0
	}
	if err := d.all[source].cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if n := d.status(c).Stats.LandedBytes; n >= size {
		t.Errorf("all %d bytes had come before the kill", n)
	}
	if err := replicate.Wait(); err != nil {
		t.Errorf("replicate: %v", err)
	}
	d.brings(c, want)
	wrote, st := d.status(d.all[other]).Stats.WrittenBytes-before[other], d.status(c).Stats
	if wrote == 0 {
		t.Error("the other holder wrote nothing")
	}
	t.Logf("MEASURED: a daemon was killed while it wrote; the other one wrote %d of %d bytes, %d bytes landed and %d "+
		"came by TCP", wrote, size, st.LandedBytes, st.LinkReceived)
}

// Processes over RDMA agree, though one of them is killed and another one joins.
func TestRDMADemo(t *testing.T) {
	t.Setenv("ISIS_NETWORK_INTERFACES", transporttest.RDMAInterface(t))
	out, err := output(t, "demo", "--transport", "rdma", "--members", "3", "--seed", "1", "--suspect-after", "5s")
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
	t.Setenv("ISIS_NETWORK_INTERFACES", transporttest.RDMAInterface(t))
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
	t.Setenv("ISIS_NETWORK_INTERFACES", transporttest.RDMAInterface(t))
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
	out, err := output(t, args...)
	_, text, _ := strings.Cut(out, "{") // before it the command said what it was doing
	if err == nil {
		err = json.NewDecoder(strings.NewReader("{" + text)).Decode(result)
	}
	if err != nil {
		t.Fatalf("%v: %v: %s", args, err, out)
	}
}
