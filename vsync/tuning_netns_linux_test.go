package vsync

import (
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// inNetwork runs f in a copy of this test's process that has a network of its own, with nothing in it but a loopback,
// and that vanishes with it. It skips where that cannot be had, unless KHAMSIN_REQUIRE lists netns.
func inNetwork(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	const inside = "KHAMSIN_TEST_NETWORK"
	if os.Getenv(inside) == t.Name() {
		run(t, "ip", "link", "set", "lo", "up")
		f(t)
		return
	}
	required := slices.Contains(strings.Split(os.Getenv("KHAMSIN_REQUIRE"), ","), "netns")
	if _, err := exec.LookPath("nft"); err != nil && !required {
		t.Skip("no nft")
	}
	child := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	child.Env = append(os.Environ(), inside+"="+t.Name())
	child.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	out, err := child.CombinedOutput()
	if errors.Is(err, syscall.EPERM) && !required {
		t.Skipf("no network namespace: %v", err)
	}
	t.Logf("%s", out)
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Errorf("inside: %v", err)
	}
}

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
}

// On a path that loses packets at random, the autotuner makes a few experiments and comes to rest: the window turns
// round a few times at most, and the application gets everything in order. What it makes of loss that no setting
// changes is shown on a virtual clock, where nothing else disturbs.
func TestAutotuneOnALossyPath(t *testing.T) {
	inNetwork(t, func(t *testing.T) {
		p := startPair(t)
		run(t, "nft", "add table ip lossy; add chain ip lossy in { type filter hook input priority 0; }; "+
			"add rule ip lossy in meta l4proto udp numgen random mod 100 < 3 drop")
		const second = 4000 // messages; enough of them for a judgement in each interval
		for end := time.Now().Add(8 * time.Second); time.Now().Before(end); {
			p.traffic(t, second)
		}
		now, _ := p.a.Tuning()
		t.Logf("%+v", now)
		turned, direction, tried := 0, 0, 0
		for _, d := range now.Decisions {
			if d.Setting != "window" || d.From == d.To {
				continue
			}
			tried++
			if up := sign(d.To - d.From); up != direction {
				turned, direction = turned+1, up
			}
		}
		if tried == 0 || turned > 8 {
			t.Errorf("%d changes of the window, which turned round %d times", tried, turned)
		}
		if p.bad.Load() > 0 {
			t.Errorf("%d messages out of order", p.bad.Load())
		}
	})
}

func sign(n int) int {
	if n < 0 {
		return -1
	}
	return 1
}
