package apply

import (
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/khamsin-io/khamsin/tune/hostview"
)

// crashRoot and crashStep tell a process that this test starts where the host lies, and at which step it dies.
const (
	crashRoot = "KHAMSIN_TEST_CRASH_ROOT"
	crashStep = "KHAMSIN_TEST_CRASH_STEP"
)

// killAt returns a step function that kills the process, as kill -9 does, at step n.
func killAt(n int) func(string) {
	return func(string) {
		if n--; n < 0 {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		}
	}
}

// TestCrashChild is no test of its own: it is the process that TestKilledAtEveryStep kills.
func TestCrashChild(t *testing.T) {
	root := os.Getenv(crashRoot)
	if root == "" {
		return // run by the suite, not by TestKilledAtEveryStep
	}
	step, err := strconv.Atoi(os.Getenv(crashStep))
	if err != nil {
		t.Fatal(err)
	}
	h := hostview.At(root, &fakeKernel{root: root})
	o := Options{Interface: "eth1", Persist: true, step: killAt(step)}
	if _, err := Apply(h, wanted(), o); err != nil {
		t.Fatal(err)
	}
}

// A run that is killed at any step leaves a journal that restores every value, and so does a second run on top of it.
func TestKilledAtEveryStep(t *testing.T) {
	killed := 0
	for step := 0; ; step++ {
		h, root := makeHost(t, before())
		was := snapshot(t, root)
		child := exec.Command(os.Args[0], "-test.run=^TestCrashChild$")
		child.Env = append(os.Environ(), crashRoot+"="+root, crashStep+"="+strconv.Itoa(step))
		out, err := child.CombinedOutput()
		var exit *exec.ExitError
		died := errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL
		if err != nil && !died {
			t.Fatalf("step %d: %v: %s", step, err, out)
		}
		if step%2 == 1 { // a torn line at the end does no harm
			path := h.Path(DefaultJournal)
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, append(text, `12345678 {"kind":"sysctl","tar`...), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if step%3 == 2 {
			if _, err := Apply(h, wanted(), Options{Interface: "eth1", Persist: true}); err != nil {
				t.Fatalf("step %d: second run: %v", step, err)
			}
		}
		if _, err := Revert(h, Options{}); err != nil {
			t.Fatalf("step %d: revert: %v", step, err)
		}
		if got := snapshot(t, root); !maps.Equal(got, was) {
			t.Errorf("step %d: after revert %v, before apply %v", step, got, was)
		}
		if !died {
			break
		}
		killed++
	}
	if killed < len(wanted())+3 {
		t.Errorf("killed at %d steps only", killed)
	}
}

// inNamespaces runs f in a copy of this test's process that has mounts and a network of its own, which vanish with it.
// It skips where they cannot be had, unless KHAMSIN_REQUIRE lists netns.
func inNamespaces(t *testing.T, f func(t *testing.T)) {
	const inside = "KHAMSIN_TEST_INSIDE"
	if os.Getenv(inside) == t.Name() {
		f(t)
		return
	}
	child := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	child.Env = append(os.Environ(), inside+"="+t.Name())
	child.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET}
	out, err := child.CombinedOutput()
	if errors.Is(err, syscall.EPERM) {
		if slices.Contains(strings.Split(os.Getenv("KHAMSIN_REQUIRE"), ","), "netns") {
			t.Fatalf("namespaces are required: %v", err)
		}
		t.Skipf("no namespaces: %v", err)
	}
	if strings.Contains(string(out), "--- SKIP: "+t.Name()) {
		t.Skipf("inside: %s", out)
	}
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Errorf("%v: %s", err, out)
	}
}

// mountTemp mounts a small file system for the journal that only this process sees.
func mountTemp(t *testing.T, dir, size string) {
	t.Helper()
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("khamsin-test", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}

// A disk without room for the journal is an error before any change.
func TestFullDisk(t *testing.T) {
	inNamespaces(t, func(t *testing.T) {
		h, root := makeHost(t, before())
		dir := filepath.Join(root, "full")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		mountTemp(t, dir, "8k")
		filler := make([]byte, 64<<10)
		if err := os.WriteFile(filepath.Join(dir, "filler"), filler, 0o600); !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("the disk is not full: %v", err)
		}
		was := snapshot(t, root)
		out, err := Apply(h, wanted(), Options{Interface: "eth1", Journal: "/full/journal"})
		if !errors.Is(err, syscall.ENOSPC) || len(out) > 0 || !strings.Contains(err.Error(), "nothing was changed") {
			t.Errorf("%v, %v", out, err)
		}
		if got := snapshot(t, root); !maps.Equal(got, was) {
			t.Errorf("changed: %v", got)
		}
	})
}

// A journal on a disk that is read-only is an error before any change.
func TestReadOnlyJournal(t *testing.T) {
	inNamespaces(t, func(t *testing.T) {
		h, root := makeHost(t, before())
		dir := filepath.Join(root, "ro")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		mountTemp(t, dir, "64k")
		if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
			t.Fatal(err)
		}
		was := snapshot(t, root)
		out, err := Apply(h, wanted(), Options{Interface: "eth1", Journal: "/ro/journal"})
		if !errors.Is(err, syscall.EROFS) || len(out) > 0 {
			t.Errorf("%v, %v", out, err)
		}
		if got := snapshot(t, root); !maps.Equal(got, was) {
			t.Errorf("changed: %v", got)
		}
	})
}
