package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/khamsin-io/khamsin/transports/rdma"
)

// output runs this program, and returns what it prints.
func output(t *testing.T, args ...string) (string, error) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(self, args...)
	c.Env = append(os.Environ(), asProgram+"=1", "XDG_RUNTIME_DIR="+t.TempDir())
	out, err := c.CombinedOutput()
	return string(out), err
}

// What takes RDMA says so where there is none: in a binary without it, or on an interface that no device belongs to.
func TestNoRDMA(t *testing.T) {
	t.Setenv("ISIS_NETWORK_INTERFACES", "lo")
	for _, args := range []string{
		"oob serve --transport rdma", "oracle --transport rdma", "perf local --transport rdma --no-floor",
		"perf bulk --transport rdma --receivers 1 --size 2000000 --json",
	} {
		out, err := output(t, strings.Fields(args)...)
		if err == nil || !strings.Contains(out, rdma.ErrNotBuilt.Error()) &&
			!strings.Contains(out, rdma.ErrNoDevice.Error()) {
			t.Errorf("%s: %v: %s", args, err, out)
		}
	}
	t.Setenv("ISIS_NETWORK_INTERFACES", "lo,nosuch0")
	out, err := output(t, "perf", "bulk", "--transport", "rdma")
	if err == nil || !strings.Contains(out, "rdma takes one interface") || strings.Contains(out, "panic") {
		t.Errorf("two interfaces: %v: %s", err, out)
	}
	for args, want := range map[string]string{
		"oob serve --transport pigeon":                       "--transport must be one of",
		"perf bulk --transport rdma --netns":                 "netns: no RDMA device",
		"perf local --transport rdma --netns":                "netns: no RDMA device",
		"perf bulk --transport rdma --loss 0.01 --size 4096": "loss: what is written into memory",
	} {
		if out, err := output(t, strings.Fields(args)...); err == nil || !strings.Contains(out, want) {
			t.Errorf("%s: %v, want %q: %s", args, err, want, out)
		}
	}
}

// The transport that a flag names is the one that daemons use.
func TestOobTransport(t *testing.T) {
	d := startDaemons(t, 2, "--transport", "tcp")
	if out := d.must(d.all[1], "status"); !strings.Contains(out, " over tcp, ") {
		t.Errorf("status: %s", out)
	}
}
