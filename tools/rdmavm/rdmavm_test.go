package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// A machine has succeeded only when its file and QEMU's exit code both say so.
func TestVerdict(t *testing.T) {
	for _, tc := range []struct {
		rc    string // the file; empty: there is none
		exit  int
		ok    bool
		steps bool // steps failed, and both witnesses say so
	}{
		{"0\n", 1, true, false},
		{"0\n", 0, false, false}, // a panic behind the script
		{"", 0, false, false},    // a panic before its end
		{"", 1, false, false},
		{"1\n", 3, false, true},
		{"1\n", 1, false, false},
		{"98\n", 197, false, true},
		{"x\n", 1, false, false},
	} {
		m := &machine{number: 1, dir: t.TempDir()}
		if tc.rc != "" {
			if err := os.WriteFile(m.path("rc"), []byte(tc.rc), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		err := m.verdict(tc.exit)
		if (err == nil) != tc.ok || errors.Is(err, errSteps) != tc.steps {
			t.Errorf("file %q, exit %d: %v", tc.rc, tc.exit, err)
		}
	}
}

// A log is cut into steps, and a step that did not end is not one that succeeded.
func TestReadLog(t *testing.T) {
	list := readLog("noise\nSTEP one\n--- PASS: TestA\nSTEP-END one 0 1.5 3.0\nSTEP two\nhalf a line" +
		"\nSTEP-END two 1 3.0 4.0\nSTEP three\npanic\n")
	if len(list) != 3 {
		t.Fatalf("%d steps", len(list))
	}
	for i, want := range []outcome{
		{name: "one", text: "--- PASS: TestA\n", ended: true, ok: true, seconds: 1.5},
		{name: "two", text: "half a line\n", ended: true, seconds: 1},
		{name: "three", text: "panic\n"},
	} {
		if list[i] != want {
			t.Errorf("%+v, want %+v", list[i], want)
		}
	}
}

// A step that the log does not have is an error, whatever the exit codes say.
func TestMissingStep(t *testing.T) {
	m := &machine{number: 1, dir: t.TempDir()}
	p := &plan{steps: []step{{name: "one"}, {name: "two", machine: 1}, {name: "three", machine: 2}}}
	log := "STEP one\nSTEP-END one 0 1.0 2.0\n"
	if err := os.WriteFile(m.path("out.log"), []byte(log), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := m.report(p, false); err == nil || !strings.Contains(err.Error(), "1 steps were not run") {
		t.Errorf("got %v", err)
	}
}

// The guest's script is one that a shell reads, with every step of its machine, and it fails when one of them does.
func TestScript(t *testing.T) {
	p := &plan{}
	p.steps = []step{
		{name: "good", command: "true", limit: time.Minute},
		{name: "bad", machine: 1, runs: testsOf("./a"), command: "PROGRAM", limit: time.Minute},
		{name: "other", machine: 2, command: "true", limit: time.Minute},
	}
	script := p.script(1)
	if !strings.Contains(script, "step 'bad' 60 'bin/a' './run'\n") || strings.Contains(script, "'other'") {
		t.Errorf("script:\n%s", script)
	}
	_, steps, _ := strings.Cut(script, "failed=0\n") // what is before it needs a guest
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "bin/a"), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", "failed=0\n"+steps)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Errorf("%v\n%s", err, out)
	}
	list := readLog(string(out))
	if len(list) != 2 || !list[0].ok || list[1].ok || !list[1].ended {
		t.Errorf("%+v", list)
	}
}

// Every step's package is built once, and one that is not there is an error.
func TestPlan(t *testing.T) {
	if p, err := newPlan("", ""); err == nil {
		t.Errorf("a plan without packages: %+v", p)
	}
	t.Chdir("../..")
	p, err := newPlan("", "")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range p.steps {
		if s.runs.pkg != "" && !p.builds[s.runs] {
			t.Errorf("step %s has no binary", s.name)
		}
	}
	for _, name := range []string{"transport", "virtual-synchrony", "demo", "peers-1%-loss", "objects",
		"objects-1%-loss", "daemons", "perf-bulk", "perf-local", "checkers"} {
		if !slices.ContainsFunc(p.steps, func(s step) bool { return s.name == name }) {
			t.Errorf("step %s is left out", name)
		}
	}
	names := map[string]binary{}
	for b := range p.builds {
		if other, ok := names[b.name()]; ok {
			t.Errorf("%v and %v are both built as %s", b, other, b.name())
		}
		names[b.name()] = b
	}
	if _, err := newPlan("nosuchstep", ""); err == nil {
		t.Error("a plan without steps")
	}
	if _, err := newPlan("(", ""); err == nil {
		t.Error("a bad expression")
	}
}

// An archive unpacks to what was put in.
func TestArchive(t *testing.T) {
	cpio, err := exec.LookPath("cpio")
	if err != nil {
		t.Skip("no cpio to read archives with")
	}
	var b bytes.Buffer
	w := &archive{w: &b, have: map[string]bool{}}
	for name, text := range map[string]string{"/a": "", "/x/y/z": "some text", "/x/odd": "12345"} {
		w.file(name, 0o644, []byte(text))
	}
	w.trailer()
	if w.err != nil {
		t.Fatal(w.err)
	}
	cmd := exec.Command(cpio, "-id", "--quiet")
	cmd.Dir, cmd.Stdin = t.TempDir(), &b
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for name, want := range map[string]string{"a": "", "x/y/z": "some text", "x/odd": "12345"} {
		if got, err := os.ReadFile(filepath.Join(cmd.Dir, name)); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

// Modules come with all that they need, once each; names of modules and of files differ in their dashes.
func TestModulePaths(t *testing.T) {
	k := kernel{version: "1.2", dir: t.TempDir()}
	dir := filepath.Join(k.dir, "lib/modules/1.2")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	index := "kernel/a/rdma_rxe.ko: kernel/b/ib-core.ko kernel/c/udp.ko\nkernel/b/ib-core.ko:\nkernel/c/udp.ko:\n"
	if err := os.WriteFile(filepath.Join(dir, "modules.dep"), []byte(index), 0o644); err != nil {
		t.Fatal(err)
	}
	got, err := k.modulePaths("rdma_rxe", "ib_core", "built_in")
	want := []string{"kernel/a/rdma_rxe.ko", "kernel/b/ib-core.ko", "kernel/c/udp.ko"}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v", got, err)
	}
}

// A wait ends with its limit, and with what it waits for.
func TestWaitFor(t *testing.T) {
	if err := waitFor(context.Background(), time.Minute, func() bool { return true }); err != nil {
		t.Error(err)
	}
	if err := waitFor(context.Background(), time.Millisecond, func() bool { return false }); err == nil {
		t.Error("a wait in vain ended well")
	}
}

// playedMachine is a program in QEMU's place: machine 1 never boots for the first DEAD times; else its step ends with
// exit code RC.
const playedMachine = `#!/bin/sh
for a; do
	case $a in
	file:*) console=${a#file:} ;;
	stream,*) wire=${a#*addr.path=}; wire=${wire%,server=*} ;;
	esac
done
dir=$(dirname "$console") name=$(basename "$(dirname "$console")")
echo >>"$COUNT/$name.count"
: >"$wire"
if [ "$name" = machine1 ] && [ "$(wc -l <"$COUNT/$name.count")" -le "$DEAD" ]; then exit 1; fi
printf 'STEP one\nSTEP-END one %d 1.0 2.0\n' "$RC" >"$dir/out.log"
echo "$RC" >"$dir/rc"
echo RIG-READY >"$console"
exit $((RC << 1 | 1))
`

// A run is tried once more when a machine never booted, and never when its steps had begun.
func TestRetry(t *testing.T) {
	path := t.TempDir()
	if err := os.WriteFile(filepath.Join(path, "qemu-system-x86_64"), []byte(playedMachine), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", path+":"+os.Getenv("PATH"))
	for _, tc := range []struct {
		dead, rc string
		want     error
		times    int
	}{
		{"0", "0", nil, 1}, {"1", "0", nil, 2}, {"2", "0", errNeverBooted, 2}, {"0", "1", errSteps, 1},
		{"1", "1", errSteps, 2},
	} {
		dir := t.TempDir()
		t.Setenv("COUNT", dir)
		t.Setenv("DEAD", tc.dead)
		t.Setenv("RC", tc.rc)
		if err := os.Mkdir(filepath.Join(dir, "bin"), 0o755); err != nil {
			t.Fatal(err)
		}
		p := &plan{steps: []step{{name: "one", command: "true", limit: time.Minute}}}
		err := runMachines(context.Background(), options{}, machines(dir, kernel{}, "", 1), p)
		if !errors.Is(err, tc.want) || err != nil && tc.want == nil {
			t.Errorf("dead %s times, exit code %s: %v", tc.dead, tc.rc, err)
		}
		times, err := os.ReadFile(filepath.Join(dir, "machine1.count"))
		if err != nil || len(times) != tc.times {
			t.Errorf("dead %s times, exit code %s: started %d times, want %d; %v", tc.dead, tc.rc, len(times), tc.times,
				err)
		}
	}
}
