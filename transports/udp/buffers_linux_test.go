package udp

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// withoutPrivilege runs f on a thread that has no capability at all, so that the system's limits hold for it.
func withoutPrivilege(t *testing.T, f func()) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		err := unix.Capset(&header, &none[0])
		if err == nil {
			f()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func limitOf(t *testing.T, name string) int {
	t.Helper()
	text, err := os.ReadFile("/proc/sys/net/core/" + name)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// The kernel cuts buffers without a word; the transport says so with both numbers.
//
// rows: TUN-01, TUN-02, TUN-03
func TestShortBuffersAreNoticed(t *testing.T) {
	limit, sendLimit := limitOf(t, "rmem_max"), limitOf(t, "wmem_max")
	for _, c := range []struct {
		receive, send int
		warnings      int
	}{{2 * limit, sendLimit, 1}, {limit, sendLimit, 0}, {limit / 2, 3 * sendLimit, 1}} {
		var log bytes.Buffer
		withoutPrivilege(t, func() {
			tr, err := Open(Config{RecvBuffer: c.receive, SendBuffer: c.send, Log: slog.New(slog.NewTextHandler(&log,
				nil))})
			if err != nil {
				t.Error(err)
				return
			}
			receive, send := tr.Buffers()
			if receive != min(c.receive, limit) || send != min(c.send, sendLimit) {
				t.Errorf("asked for %d and %d, have %d and %d", c.receive, c.send, receive, send)
			}
			if err := tr.Close(); err != nil {
				t.Error(err)
			}
		})
		if got := strings.Count(log.String(), "smaller socket buffer"); got != c.warnings {
			t.Errorf("%+v: %d warnings: %s", c, got, &log)
		}
		if both := fmt.Sprintf("asked=%d granted=%d", c.receive, limit); c.receive > limit &&
			!strings.Contains(log.String(), both) {
			t.Errorf("no %q in %s", both, &log)
		}
	}
}

func TestRequestBuffers(t *testing.T) {
	tr := openUntilEnd(t, Config{RecvBuffer: 64 << 10, SendBuffer: 64 << 10, GroupPort: freePort(t)})
	if receive, send := tr.RequestBuffers(256<<10, 128<<10); receive != 256<<10 || send != 128<<10 {
		t.Errorf("granted %d and %d", receive, send)
	}
	for _, s := range tr.groups {
		if got, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUF); err != nil || got != 512<<10 {
			t.Errorf("multicast socket: %d, %v", got, err)
		}
	}
	withoutPrivilege(t, func() {
		limit := limitOf(t, "rmem_max")
		if receive, _ := tr.RequestBuffers(2*limit, 64<<10); receive != limit {
			t.Errorf("granted %d, the limit is %d", receive, limit)
		}
	})
	if err := tr.Close(); err != nil {
		t.Fatal(err)
	}
	if receive, send := tr.RequestBuffers(1<<20, 1<<20); receive != 0 || send != 0 {
		t.Errorf("closed, and granted %d and %d", receive, send)
	}
}
