package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/khamsin-io/khamsin/vsync"
)

// asProgram makes the test's program khamsin itself.
const asProgram = "KHAMSIN_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// oracle is a process of khamsin oracle.
type oracle struct {
	cmd   *exec.Cmd
	ready struct {
		Ready   bool
		System  string
		Address string
	}
}

func startOracle(t *testing.T, system string, env ...string) *oracle {
	t.Helper()
	return startOracleWith(t, nil, system, env...)
}

func startOracleWith(t *testing.T, args []string, system string, env ...string) *oracle {
	t.Helper()
	o := &oracle{cmd: program(t, env, append([]string{"oracle", "--system", system, "--json"}, args...)...)}
	out, err := o.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := o.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(line), &o.ready); err != nil || !o.ready.Ready || o.ready.System != system {
		t.Fatalf("%q, %v", line, err)
	}
	return o
}

// ends waits for the process and returns its exit status.
func (o *oracle) ends(t *testing.T) int {
	t.Helper()
	timer := time.AfterFunc(20*time.Second, func() { _ = o.cmd.Process.Kill() })
	defer timer.Stop()
	_ = o.cmd.Wait()
	return o.cmd.ProcessState.ExitCode()
}

// hostedBy waits until the ORACLE, as a process sees it, consists of the given ones.
func hostedBy(t *testing.T, app *vsync.System, want ...*oracle) {
	t.Helper()
	var has []string
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
		has = has[:0]
		for _, a := range app.State().Oracle {
			has = append(has, a.String())
		}
		missing := len(has) != len(want)
		for _, o := range want {
			missing = missing || !strings.Contains(strings.Join(has, " "), o.ready.Address)
		}
		if !missing {
			return
		}
		<-time.After(20 * time.Millisecond)
	}
	t.Fatalf("the ORACLE is %v", has)
}

// A dedicated ORACLE: it says when it is ready, to systemd as well; applications attach to it and go on when it is
// killed and started again; it leaves in order when it is told to end.
//
// rows: ORC-11
func TestOracle(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "notify")
	systemd, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer systemd.Close()
	if err := systemd.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	said := func() string {
		b := make([]byte, 1000)
		n, err := systemd.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n])
	}
	system := fmt.Sprintf("oracle-%d", os.Getpid())
	first := startOracle(t, system, "NOTIFY_SOCKET="+socket)
	if text := said(); !strings.HasPrefix(text, "READY=1\n") {
		t.Errorf("told systemd %q", text)
	}
	second, third := startOracle(t, system), startOracle(t, system)
	app, err := vsync.Start(t.Context(), vsync.WithSystemName(system), vsync.WithEligible(false), vsync.WithMute())
	if err != nil {
		t.Fatal(err)
	}
	defer app.Close()
	hostedBy(t, app, first, second, third)
	if err := second.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	second.ends(t)
	second = startOracle(t, system)
	hostedBy(t, app, first, second, third)
	if err := first.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if status := first.ends(t); status != 0 {
		t.Errorf("exit status %d after SIGTERM", status)
	}
	if text := said(); text != "STOPPING=1" {
		t.Errorf("told systemd %q", text)
	}
	// Two are left: one of them is the ORACLE, since two would be lost with either.
	g := app.NewGroup("after")
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := g.Join(ctx); err != nil {
		t.Error(err)
	}
}

// program returns this program as khamsin, with a limit on its life.
func program(t *testing.T, env []string, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	c := exec.CommandContext(ctx, self, args...)
	c.Env = append(append(os.Environ(), asProgram+"=1", "XDG_RUNTIME_DIR="+t.TempDir()), env...)
	c.WaitDelay = time.Second
	return c
}

// awaitFile waits until a directory has a file.
func awaitFile(t *testing.T, dir string) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; <-time.After(5 * time.Millisecond) {
		if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("nothing in %s", dir)
		}
	}
}

// A dedicated ORACLE that is told to end while it still looks for a system, which it may not found here, ends at once.
func TestOracleIsToldToEndWhileItStarts(t *testing.T) {
	logs := t.TempDir()
	c := program(t, []string{"ISIS_HOSTS=192.0.2.1", "ISIS_LOGDIR=" + logs}, "oracle", "--system", t.Name())
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	awaitFile(t, logs)
	began := time.Now()
	if err := c.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(); err != nil {
		t.Errorf("ended with %v", err)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
}

// What the environment says holds beside a configuration file that a flag names: a key above all. The file says where
// the status socket is.
func TestOracleWithAFile(t *testing.T) {
	dir := t.TempDir()
	status, file := filepath.Join(dir, "status"), filepath.Join(dir, "khamsin.toml")
	if err := os.WriteFile(file, fmt.Appendf(nil, "status_dir = %q\n", status), 0o600); err != nil {
		t.Fatal(err)
	}
	system := fmt.Sprintf("filed-%d", os.Getpid())
	startOracleWith(t, []string{"--config", file}, system, "ISIS_AESKEY="+strings.Repeat("c4", vsync.KeyLen))
	if list, err := vsync.StatusSockets(status); err != nil || len(list) != 1 {
		t.Errorf("status sockets: %v, %v", list, err)
	}
	s, err := vsync.Start(t.Context(), vsync.WithSystemName(system), vsync.WithEligible(false), vsync.WithMute())
	if !errors.Is(err, vsync.ErrSystemKey) {
		t.Errorf("without the key: %v", err)
	}
	if err == nil {
		_ = s.Close()
	}
	out, err := program(t, []string{"KHAMSIN_STATUS=0"}, "oracle", "--size", "0").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "OracleSize is 0") {
		t.Errorf("an ORACLE of size 0: %v, %s", err, out)
	}
}
