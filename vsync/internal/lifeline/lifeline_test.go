package lifeline

import (
	"net"
	"net/netip"
	"strconv"
	"testing"
	"time"

	"github.com/khamsin-io/khamsin/vsync/core"
)

// news is one report of a keeper.
type news struct {
	incarnation uint64
	alive       bool
}

// self returns an address on loopback.
func self(incarnation uint64) core.Address {
	return core.Address{IP: netip.MustParseAddr("127.0.0.1").As16(), Port: 0, Incarnation: incarnation}
}

// open returns a keeper and what it reports.
func open(t *testing.T, incarnation uint64) (*Keeper, chan news) {
	t.Helper()
	k, err := Open(self(incarnation))
	if err != nil {
		t.Fatal(err)
	}
	reports := make(chan news, 64)
	k.Start(func(incarnation uint64, alive bool) { reports <- news{incarnation, alive} })
	t.Cleanup(func() { k.Close(false) })
	return k, reports
}

// held waits until a keeper holds n connections of watchers.
func held(t *testing.T, k *Keeper, n int) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		k.mu.Lock()
		have := len(k.held)
		k.mu.Unlock()
		if have == n {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d connections held, want %d", have, n)
		}
	}
}

func next(t *testing.T, reports chan news, want news) {
	t.Helper()
	select {
	case got := <-reports:
		if got != want {
			t.Fatalf("reported %v, want %v", got, want)
		}
	case <-time.After(20 * time.Second):
		t.Fatalf("nothing reported, want %v", want)
	}
}

// A process that ends without a word is reported, as one that is gone.
func TestEnd(t *testing.T) {
	target, _ := open(t, 1)
	watcher, reports := open(t, 2)
	watcher.Want(self(1), target.Port())
	watcher.Want(self(1), target.Port()) // again: nothing
	held(t, target, 1)
	target.Close(false)
	next(t, reports, news{1, false})
	next(t, reports, news{1, false}) // nothing listens any more: said again, less and less often
}

// A process that leaves in order is not reported.
func TestLeave(t *testing.T) {
	target, _ := open(t, 1)
	watcher, reports := open(t, 2)
	watcher.Want(self(1), target.Port())
	held(t, target, 1)
	target.Close(true)
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		watcher.mu.Lock()
		lines := len(watcher.lines)
		watcher.mu.Unlock()
		if lines == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the line is still kept")
		}
	}
	select {
	case got := <-reports:
		t.Fatalf("reported %v", got)
	default:
	}
}

// A line that something on the way breaks is opened again; the process itself is then heard of.
func TestBrokenOnTheWay(t *testing.T) {
	target, _ := open(t, 1)
	watcher, reports := open(t, 2)
	watcher.Want(self(1), target.Port())
	// Once both sides have said who they are: before that a line that breaks says nothing.
	for reported := false; !reported; {
		held(t, target, 1)
		target.mu.Lock()
		for _, c := range target.held {
			_ = c.Close() // as a proxy or a firewall might
		}
		target.mu.Unlock()
		select {
		case got := <-reports:
			if reported = true; got != (news{1, false}) {
				t.Fatalf("reported %v", got)
			}
		case <-time.After(100 * time.Millisecond):
		}
	}
	next(t, reports, news{1, true})
}

// Another process that took the port is not taken for the one that is watched.
func TestAnotherAtThePort(t *testing.T) {
	other, _ := open(t, 3)
	watcher, reports := open(t, 2)
	watcher.Want(self(1), other.Port())
	next(t, reports, news{1, false})
	watcher.Drop(1)
	watcher.Drop(1)
	held(t, other, 0)
}

// A reset says nothing by itself: the other end may be alive behind a firewall.
func TestReset(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	resets := make(chan struct{})
	go func() {
		defer close(resets)
		for range 2 {
			c, err := l.Accept()
			if err != nil {
				return
			}
			g := greeting(1)
			_, _ = c.Write(g[:])
			_ = c.(*net.TCPConn).SetLinger(0)
			_ = c.Close()
		}
	}()
	watcher, reports := open(t, 2)
	watcher.Want(self(1), uint16(l.Addr().(*net.TCPAddr).Port))
	<-resets
	watcher.Close(false)
	select {
	case got := <-reports:
		t.Fatalf("reported %v", got)
	default:
	}
}

// Strangers are cut off: those who send something, and the eldest of too many.
func TestStrangers(t *testing.T) {
	target, _ := open(t, 1)
	at := net.JoinHostPort("127.0.0.1", strconv.Itoa(int(target.Port())))
	var all []net.Conn
	for range heldMax + 1 {
		c, err := net.Dial("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		all = append(all, c)
		if len(all) == 1 {
			held(t, target, 1)
		}
	}
	end := func(c net.Conn) {
		t.Helper()
		_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
		b := make([]byte, 1024)
		for {
			if _, err := c.Read(b); err != nil {
				if e, ok := err.(net.Error); ok && e.Timeout() {
					t.Fatal("still open")
				}
				return
			}
		}
	}
	end(all[0])
	last := all[len(all)-1]
	if _, err := last.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	end(last)
	held(t, target, heldMax-1)
}
