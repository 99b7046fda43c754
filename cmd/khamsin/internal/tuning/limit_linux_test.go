package tuning

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/khamsin-io/khamsin/tune/probe"
	"github.com/khamsin-io/khamsin/vsync"
)

// partEnv names what a copy of this test's process does.
const partEnv = "KHAMSIN_TEST_PART"

// asNobody runs a part of this process as a user without any privilege and returns what it printed.
func asNobody(t *testing.T, part string) (string, int) {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "test")
	text, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(binary, text, 0o755); err != nil {
		t.Fatal(err)
	}
	for dir := filepath.Dir(binary); strings.HasPrefix(dir, os.TempDir()) &&
		dir != os.TempDir(); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	c := exec.Command(binary, "-test.run=^TestPart$")
	c.Env, c.Dir = append(os.Environ(), partEnv+"="+part), "/"
	if os.Getuid() == 0 {
		const nobody = 65534
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	_ = c.Run() // the status says how it ended
	return out.String(), c.ProcessState.ExitCode()
}

// TestPart is no test of its own: it is what asNobody runs.
func TestPart(t *testing.T) {
	switch os.Getenv(partEnv) {
	case "apply":
		err := Apply(os.Stdout, Goal{Profile: "bulk", Transport: "udp"}, ApplyOptions{Journal: "/tmp/none/journal"})
		if err != nil {
			os.Exit(status(err))
		}
	case "probe":
		r, err := probe.Run(t.Context(), probe.Config{Each: 300 * time.Millisecond, Rounds: 1})
		if err != nil {
			t.Fatal(err)
		}
		if err := json.NewEncoder(os.Stdout).Encode(r); err != nil {
			t.Fatal(err)
		}
		os.Exit(0) // nothing but the result on the output
	case "traffic":
		if err := json.NewEncoder(os.Stdout).Encode(groupTraffic(t)); err != nil {
			t.Fatal(err)
		}
		os.Exit(0)
	}
}

// traffic is what a group of two members on the loopback did.
type traffic struct {
	Rate float64 // bytes of messages per second
	Lost uint64  // datagrams that the kernel dropped for want of room in a socket, of all processes
}

// groupTraffic sends messages from one member to another as fast as it goes, with the autotuner pinned off.
func groupTraffic(t *testing.T) traffic {
	t.Helper()
	const messages, size = 4000, 4000
	config := vsync.DefaultConfig()
	config.MaxPacket, config.Autotune, config.Mute, config.SystemName = 8192, false, true, t.Name()
	config.OracleSize, config.Discovery = 1, 300*time.Millisecond
	config.SuspectAfter = 20 * time.Second // an emulated processor is slow, not dead
	lost := rcvbufErrors(t)
	done := make(chan struct{})
	var groups [2]*vsync.Group
	for i := range groups {
		config.FastStart = i == 0
		s, err := vsync.Start(t.Context(), vsync.WithConfig(config))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = s.Close() }()
		n := 0
		groups[i] = s.NewGroup("g")
		err = groups[i].Handle(1, func(*vsync.Message) {
			if n++; i == 1 && n == messages {
				close(done)
			}
		})
		if err := errors.Join(err, groups[i].Join(t.Context())); err != nil {
			t.Fatal(err)
		}
	}
	start, payload := time.Now(), make([]byte, size)
	for range messages {
		if err := groups[0].SendBytes(t.Context(), vsync.FIFO, 1, payload); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case <-done:
	case <-time.After(2 * time.Minute):
		t.Fatal("the messages did not arrive")
	}
	return traffic{Rate: messages * size / time.Since(start).Seconds(), Lost: rcvbufErrors(t) - lost}
}

// rcvbufErrors reads the kernel's counter.
func rcvbufErrors(t *testing.T) uint64 {
	t.Helper()
	text, err := os.ReadFile("/proc/self/net/snmp")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if fields[0] != "Udp:" {
			continue
		}
		if names == nil {
			names = fields
			continue
		}
		n, err := strconv.ParseUint(fields[slices.Index(names, "RcvbufErrors")], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	t.Fatal("no counters of UDP")
	return 0
}

// Without privilege nothing is changed: the commands are printed instead, and the status says so.
func TestPoliteRefusal(t *testing.T) {
	before, err := os.ReadFile("/proc/sys/net/core/rmem_max")
	if err != nil {
		t.Fatal(err)
	}
	out, code := asNobody(t, "apply")
	if code != ExitFailed || !strings.Contains(out, "not permitted") || !strings.Contains(out,
		"sysctl -w net.core.rmem_max=16777216") {
		t.Errorf("status %d: %s", code, out)
	}
	if after, err := os.ReadFile("/proc/sys/net/core/rmem_max"); err != nil || !bytes.Equal(before, after) {
		t.Errorf("rmem_max was %s and is %s, %v", before, after, err)
	}
}

// disposableEnv says that this machine's settings may be changed: it is a virtual machine made for the test.
const disposableEnv = "KHAMSIN_DISPOSABLE"

// measured returns what a process without privilege measures with packets of 8 KiB, which fit the loopback.
func measured(t *testing.T) probe.Point {
	t.Helper()
	out, code := asNobody(t, "probe")
	var r probe.Result
	if err := json.Unmarshal([]byte(out), &r); err != nil || code != 0 {
		t.Fatalf("status %d, %v: %s", code, err, out)
	}
	for _, p := range r.Series[0].Points {
		if p.Packet == 8192 {
			return p
		}
	}
	t.Fatal("no such packet was measured")
	return probe.Point{}
}

// talked returns what two members do whose process has no privilege.
func talked(t *testing.T) (did traffic) {
	t.Helper()
	out, code := asNobody(t, "traffic")
	if err := json.Unmarshal([]byte(out), &did); err != nil || code != 0 {
		t.Fatalf("status %d, %v: %s", code, err, out)
	}
	return did
}

// The whole story on a machine of its own: a small rmem_max makes traffic lose packets; check finds and explains it,
// apply cures it, revert puts it back.
//
// rows: TUN-04, TUN-05, TUN-12, OBS-13
func TestSmallLimitIsFoundExplainedAndCured(t *testing.T) {
	if os.Getenv(disposableEnv) == "" {
		t.Skip("changes net.core.rmem_max of the host: set " + disposableEnv + "=1 in a virtual machine made for it")
	}
	set := func(name, value string) {
		if err := os.WriteFile("/proc/sys/net/core/"+name, []byte(value), 0); err != nil {
			t.Fatal(err)
		}
	}
	const small = "212992"
	set("rmem_max", small)
	set("wmem_max", small)
	g := Goal{Profile: "throughput", Transport: "udp"}
	o := ApplyOptions{Settings: []string{"net.core.rmem_max", "net.core.wmem_max"},
		Journal: filepath.Join(t.TempDir(), "j")}

	before, slow := measured(t), talked(t)
	var said strings.Builder
	err := Check(&said, Source{Goal: g}, false)
	if status(err) != ExitWrong || !strings.Contains(said.String(), "net.core.rmem_max=4194304") {
		t.Errorf("check does not find it: %v: %s", err, &said)
	}
	var did strings.Builder
	if err := Apply(&did, g, o); err != nil {
		t.Fatalf("%v: %s", err, &did)
	}
	after, fast := measured(t), talked(t)
	said.Reset()
	if err := Check(&said, Source{Goal: g}, false); strings.Contains(said.String(), "net.core.rmem_max=") {
		t.Errorf("still wrong: %v: %s", err, &said)
	}
	o.Settings, o.Revert = nil, true
	if err := Apply(&did, g, o); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"rmem_max", "wmem_max"} {
		if text, err := os.ReadFile("/proc/sys/net/core/" + name); err != nil ||
			strings.TrimSpace(string(text)) != small {
			t.Errorf("after revert %s is %s, %v", name, text, err)
		}
	}
	t.Logf("path before: granted %d, %.1f MB/s, %.3f %% lost", before.Granted, before.Goodput/1e6, 100*before.Loss())
	t.Logf("path after:  granted %d, %.1f MB/s, %.3f %% lost", after.Granted, after.Goodput/1e6, 100*after.Loss())
	t.Logf("group before: %.1f MB/s, %d datagrams dropped in sockets", slow.Rate/1e6, slow.Lost)
	t.Logf("group after:  %.1f MB/s, %d datagrams dropped in sockets", fast.Rate/1e6, fast.Lost)
	t.Log(did.String())
	if fast.Lost > slow.Lost/2 { // rates on an emulated processor depend on what else its host does
		t.Error("the group is not cured")
	}
	if before.Granted > 212992 || before.Loss() < 0.01 {
		t.Errorf("nothing was lost before: %+v", before)
	}
	if after.Granted != 4<<20 || after.Loss() > before.Loss()/4 {
		t.Errorf("not cured: %+v", after)
	}
}
