package vsync

import (
	"encoding/json"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/khamsin-io/khamsin/transports/mem"
)

// readStatus reads the state from a status socket.
func readStatus(t *testing.T, path string) (st struct {
	Address string
	Groups  []struct {
		Name    string
		Members []string
	}
}) {
	t.Helper()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	text, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &st); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return st
}

// A process tells its state to who connects to its socket, also while somebody else connects and reads nothing. The
// socket is gone when the system is over.
func TestStatusSocket(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "status")
	hub := mem.NewHub()
	a, b := startOn(t, hub, WithStatus(dir)), startOn(t, hub, WithStatus(dir))
	x := joined(t, a, "seen")
	joined(t, b, "seen")
	x.untilSize(t, 2)
	list, err := StatusSockets(dir)
	if err != nil || len(list) != 2 {
		t.Fatalf("sockets %v, %v", list, err)
	}
	lazy, err := net.Dial("unix", list[0])
	if err != nil {
		t.Fatal(err)
	}
	defer lazy.Close()
	seen := map[string]bool{}
	for _, path := range list {
		st := readStatus(t, path)
		seen[st.Address] = true
		if len(st.Groups) != 1 || st.Groups[0].Name != "seen" || len(st.Groups[0].Members) != 2 {
			t.Errorf("%+v", st)
		}
	}
	if !seen[a.Address().String()] || !seen[b.Address().String()] {
		t.Errorf("addresses %v", seen)
	}
	must(a.Close())
	must(b.Close())
	for deadline := time.Now().Add(patience); ; {
		if list, err = StatusSockets(dir); err != nil || len(list) == 0 || time.Now().After(deadline) {
			break
		}
		<-time.After(time.Millisecond)
	}
	if err != nil || len(list) != 0 {
		t.Errorf("after the end: %v, %v", list, err)
	}
}

// Who cannot have a socket does without: a directory that others can look into is not used.
func TestStatusSocketIsPrivate(t *testing.T) {
	dir := t.TempDir()
	must(os.Chmod(dir, 0o755))
	startOn(t, mem.NewHub(), WithStatus(dir))
	if list, err := StatusSockets(dir); err != nil || len(list) != 0 {
		t.Errorf("%v, %v", list, err)
	}
	if list, err := StatusSockets(filepath.Join(dir, "none")); err != nil || list != nil {
		t.Errorf("without a directory: %v, %v", list, err)
	}
	t.Setenv(statusVariable, "1")
	if got := (&Config{}).statusDir(); got != StatusDir() {
		t.Errorf("1 means %q", got)
	}
	t.Setenv(statusVariable, "/x")
	if got := (&Config{}).statusDir(); got != "/x" {
		t.Errorf("/x means %q", got)
	}
	if got := (&Config{StatusDir: "/y"}).statusDir(); got != "/y" {
		t.Errorf("the setting loses against the environment: %q", got)
	}
}
