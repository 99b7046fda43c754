package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/khamsin-io/khamsin/cmd/khamsin/internal/objects"
	"github.com/khamsin-io/khamsin/oob"
)

// daemons are processes of khamsin oob serve on this host.
type daemons struct {
	t      *testing.T
	dir    string
	system string
	flags  []string // of serve
	all    []*daemon
}

type daemon struct {
	name   string
	socket string
	cmd    *exec.Cmd
}

// daemonsPatience is how long daemons may take to find each other.
const daemonsPatience = time.Minute

func startDaemons(t *testing.T, n int, flags ...string) *daemons {
	t.Helper()
	// A socket's path is short, and a test's directory may not be.
	dir, err := os.MkdirTemp("", "oob")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	d := &daemons{t: t, dir: dir, flags: flags, system: fmt.Sprintf("oob-%d-%d", os.Getpid(), rand.Uint32())}
	for i := range n {
		d.start(fmt.Sprint("d", i))
	}
	for deadline := time.Now().Add(daemonsPatience); ; time.Sleep(10 * time.Millisecond) {
		var s objects.Status
		if d.json(d.all[0], &s, "status"); len(s.Members) == n {
			return d
		}
		if time.Now().After(deadline) {
			t.Fatal("the daemons do not find each other")
		}
	}
}

func (d *daemons) command(args ...string) *exec.Cmd {
	self, err := os.Executable()
	if err != nil {
		d.t.Fatal(err)
	}
	c := exec.Command(self, append([]string{"oob"}, args...)...)
	c.Env = append(os.Environ(), asProgram+"=1", "XDG_RUNTIME_DIR="+d.dir)
	return c
}

func (d *daemons) start(name string) {
	d.t.Helper()
	c := d.command(append([]string{"serve", "--name", name, "--system", d.system, "--json"}, d.flags...)...)
	out, err := c.StdoutPipe()
	if err != nil {
		d.t.Fatal(err)
	}
	var said bytes.Buffer
	c.Stderr = &said
	if err := c.Start(); err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() {
		_ = c.Process.Kill()
		_ = c.Wait()
		if d.t.Failed() {
			d.t.Logf("daemon %s said:\n%s", name, &said)
		}
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	var ready struct {
		Ready  bool
		Socket string
	}
	if err != nil || json.Unmarshal([]byte(line), &ready) != nil || !ready.Ready {
		d.t.Fatalf("%q, %v", line, err)
	}
	d.all = append(d.all, &daemon{name: name, socket: ready.Socket, cmd: c})
}

// run runs a client.
func (d *daemons) run(on *daemon, args ...string) (string, error) {
	c := d.command(append(args, "--name", on.name)...)
	var out, fault bytes.Buffer
	c.Stdout, c.Stderr = &out, &fault
	if err := c.Run(); err != nil {
		return "", errors.Join(err, errors.New(fault.String()))
	}
	return out.String(), nil
}

// must runs a client that must succeed.
func (d *daemons) must(on *daemon, args ...string) string {
	d.t.Helper()
	out, err := d.run(on, args...)
	if err != nil {
		d.t.Fatalf("%v: %v", args, err)
	}
	return out
}

func (d *daemons) json(on *daemon, to any, args ...string) {
	d.t.Helper()
	if err := json.Unmarshal([]byte(d.must(on, append(args, "--json")...)), to); err != nil {
		d.t.Fatal(err)
	}
}

// refused runs a client that must fail with a text.
func (d *daemons) refused(want string, on *daemon, args ...string) {
	d.t.Helper()
	if _, err := d.run(on, args...); err == nil || !strings.Contains(err.Error(), want) {
		d.t.Errorf("%v: %v, want an error with %q", args, err, want)
	}
}

// brings has a daemon write object f to a file, and compares that.
func (d *daemons) brings(on *daemon, want []byte) {
	d.t.Helper()
	got := filepath.Join(d.dir, "got")
	d.must(on, "get", "f", got)
	if b, err := os.ReadFile(got); err != nil || !bytes.Equal(b, want) {
		d.t.Errorf("the file that get wrote differs: %v", err)
	}
}

func (d *daemons) file(name string, size int) (string, []byte) {
	b := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{byte(size)}).Read(b)
	path := filepath.Join(d.dir, name)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		d.t.Fatal(err)
	}
	return path, b
}

// rows: FUT-05
func TestOobCommands(t *testing.T) {
	d := startDaemons(t, 3)
	a, b, c := d.all[0], d.all[1], d.all[2]
	path, want := d.file("f", 3_000_000)
	watch := d.command("watch", "--name", b.name, "--json")
	events, err := watch.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := watch.Start(); err != nil {
		t.Fatal(err)
	}
	d.must(a, "put", path)
	d.refused("exists", b, "put", d.other("f"))
	var m objects.Moved
	d.json(b, &m, "replicate", "f", "--to", "all")
	if m.Holders != 3 || m.Size != 3_000_000 || m.Digest != oob.Digest(want) {
		t.Errorf("replicate: %+v", m)
	}
	got := filepath.Join(d.dir, "got")
	d.must(c, "get", "f", got)
	if b, err := os.ReadFile(got); err != nil || !bytes.Equal(b, want) {
		t.Errorf("the file that get wrote differs: %v", err)
	}
	d.refused("exists", c, "get", "f", got)
	d.must(c, "get", "f", got, "--replace")
	d.must(a, "replicate", "f", "--to", "#0")
	var list []oob.Info
	if d.json(a, &list, "ls"); len(list) != 1 || len(list[0].Holders) != 1 || !list[0].Local {
		t.Errorf("ls: %+v", list)
	}
	d.must(c, "get", "f", got, "--replace") // it comes here for this
	d.refused("no object", a, "replicate", "none", "--to", "all")
	d.refused("no member", a, "replicate", "f", "--to", "nobody")
	d.refused("timed out", a, "get", "later", "--timeout", "0.1")
	d.must(b, "rm", "f")
	d.refused("deleted", b, "get", "f", got, "--replace")
	if out := d.must(c, "ls"); strings.Count(out, "\n") != 1 {
		t.Errorf("ls of nothing: %q", out)
	}
	seen := map[string]bool{}
	for lines := bufio.NewScanner(events); !seen["removed"] && lines.Scan(); {
		var e objects.Event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil || e.Name != "f" {
			t.Fatalf("%q: %v", lines.Text(), err)
		}
		seen[e.Event] = true
	}
	if !seen["registered"] || !seen["changed"] {
		t.Errorf("events: %v", seen)
	}
	if err := watch.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := watch.Wait(); err != nil {
		t.Errorf("watch, interrupted: %v", err)
	}
	self := d.command("serve", "--name", a.name, "--system", d.system)
	if out, err := self.CombinedOutput(); err == nil || !strings.Contains(string(out), "serves") {
		t.Errorf("a second daemon of a name: %v %s", err, out)
	}
}

// other makes another file of a name.
func (d *daemons) other(name string) string {
	dir := filepath.Join(d.dir, "other")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		d.t.Fatal(err)
	}
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte("other"), 0o600); err != nil {
		d.t.Fatal(err)
	}
	return path
}

// A daemon that is killed while it sends takes nothing along that others hold; its socket is taken over by the next.
func TestOobKill(t *testing.T) {
	d := startDaemons(t, 3)
	a, b, c := d.all[0], d.all[1], d.all[2]
	path, want := d.file("f", 48<<20)
	d.must(a, "put", path, "--to", "#0", "--to", "#1")
	replicate := d.command("replicate", "f", "--to", "all", "--name", b.name)
	if err := replicate.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(15 * time.Millisecond)
	if err := a.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := replicate.Wait(); err != nil {
		t.Errorf("replicate: %v", err)
	}
	d.brings(c, want)
	d.start(a.name)
	var list []oob.Info
	if d.json(d.all[3], &list, "ls"); len(list) != 1 || list[0].Local {
		t.Errorf("the new daemon knows %+v", list)
	}
	if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Wait(); err != nil {
		t.Errorf("SIGTERM: %v", err)
	}
	if _, err := os.Stat(c.socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}

// What is no request, comes in pieces, or is never read, harms nobody else.
func TestOobGarbage(t *testing.T) {
	d := startDaemons(t, 1)
	a := d.all[0]
	if info, err := os.Stat(a.socket); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket: %v %v", info.Mode(), err)
	}
	for _, c := range []struct{ line, kind string }{
		{"\x00\xff", "-32700"}, {"{}", "-32600"}, {`{"jsonrpc":"2.0","id":1,"method":"fly"}`, "-32601"},
		{`{"jsonrpc":"2.0","id":1,"method":"get"}`, "-32602"},
		{`{"jsonrpc":"2.0","id":1,"method":"put","params":{"name":"a/b","path":"/etc/hostname"}}`, `"kind":"name"`},
		{`{"jsonrpc":"2.0","id":1,"method":"put","params":{"name":"x","path":"relative"}}`, "-32602"},
		{`{"jsonrpc":"2.0","id":1,"method":"put","params":{"name":"x","path":"/nowhere"}}`, `"kind":"file"`},
		{`{"jsonrpc":"2.0","id":1,"method":"put","params":{"name":"x","path":"/dev/zero"}}`, "regular"},
		{`{"jsonrpc":"2.0","id":1,"method":"get","params":{"nam":"x"}}`, "-32602"},
		{`{"jsonrpc":"2.0","id":[1],"method":"ls"}`, `"id":[1]`},
		{strings.Repeat("x", 2<<20), "a line of more"},
	} {
		conn, err := net.Dial("unix", a.socket)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write([]byte(c.line + "\n")); err != nil && len(c.line) < 1<<20 {
			t.Fatal(err)
		}
		line, err := bufio.NewReader(conn).ReadString('\n')
		if err != nil && len(c.line) < 1<<20 || err == nil && !strings.Contains(line, c.kind) {
			t.Errorf("%.60q: %q %v, want %s", c.line, line, err, c.kind)
		}
		_ = conn.Close()
	}
	deaf, err := net.Dial("unix", a.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = deaf.Close() }()
	go func() {
		for range 100_000 {
			if _, err := deaf.Write([]byte(`{"jsonrpc":"2.0","id":1,"method":"status"}` + "\n")); err != nil {
				return
			}
		}
	}()
	d.must(a, "ls")
}

// Another language needs a socket and JSON.
//
// rows: FUT-01
func TestOobPython(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("python3 is not here")
	}
	d := startDaemons(t, 2)
	path, want := d.file("f", 100_000)
	script := filepath.Join("..", "..", "examples", "bulk", "python", "objects.py")
	call := func(on *daemon, args ...string) string {
		out, err := exec.Command(python, append([]string{script, on.socket}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v: %s", args, err, out)
		}
		return string(out)
	}
	if out := call(d.all[0], "put", path, "f", "all"); !strings.Contains(out, `"holders": 2`) {
		t.Errorf("put: %s", out)
	}
	if out := call(d.all[1], "ls"); out != fmt.Sprintf("f 100000 2 %s\n", oob.Digest(want)) {
		t.Errorf("ls: %s", out)
	}
	got := filepath.Join(d.dir, "got")
	call(d.all[1], "get", "f", got)
	if b, err := os.ReadFile(got); err != nil || !bytes.Equal(b, want) {
		t.Errorf("the file that get wrote differs: %v", err)
	}
	call(d.all[1], "rm", "f")
	out, err := exec.Command(python, script, d.all[0].socket, "get", "f", got).CombinedOutput()
	if err == nil || !strings.HasPrefix(string(out), "deleted:") {
		t.Errorf("get of a deleted object: %v %s", err, out)
	}
}
