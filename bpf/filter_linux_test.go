package bpf

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/khamsin-io/khamsin/internal/netns"
)

func newFilter(tb testing.TB) *Filter {
	tb.Helper()
	netns.Require(tb, "xdp", ProbeFilter())
	f, err := OpenFilter()
	must(tb, err)
	tb.Cleanup(func() { must(tb, f.Close()) })
	return f
}

// On the kernel's test bench: what is not certainly an unwanted packet of ours goes through, whole.
func TestFilterVerdicts(t *testing.T) {
	f := newFilter(t)
	must(t, f.Admit(5))
	for _, tc := range []struct {
		name string
		craft
		drop bool
	}{
		{"admitted", craft{to: byGroup, payload: packet(5, 64)}, false},
		{"not admitted", craft{to: byGroup, payload: packet(6, 64)}, true},
		{"no group", craft{to: byGroup, payload: packet(0, 64)}, false},
		{"not admitted, options", craft{to: byGroup, options: 40, payload: packet(6, 64)}, true},
		{"not admitted, IPv6", craft{to: byGroup6, payload: packet(6, 64)}, true},
		{"admitted, IPv6", craft{to: byGroup6, payload: packet(5, 64)}, false},
		{"nothing of ours", craft{to: byGroup, payload: []byte("hello")}, false},
		{"header cut off", craft{to: byGroup, payload: packet(6, 64)[:39]}, false},
		{"another version", craft{to: byGroup, payload: append([]byte{'K', 2}, packet(6, 64)[2:]...)}, false},
		{"another magic", craft{to: byGroup, payload: append([]byte{'k'}, packet(6, 64)[1:]...)}, false},
	} {
		frame := tc.frame()
		got, _, err := f.objs.KhamsinFilter.Test(frame)
		must(t, err)
		if (got == 0) != tc.drop {
			t.Errorf("%s: verdict %d", tc.name, got)
		}
		start := 14 + 20 + tc.options
		for n := start; n < start+8+40 && !tc.to.Addr().Is6(); n++ { // never a drop on guesses
			if got, _, err := f.objs.KhamsinFilter.Test(frame[:min(n, len(frame))]); err != nil || got == 0 {
				t.Errorf("%s, %d bytes of it: verdict %d, %v", tc.name, n, got, err)
			}
		}
	}
}

// On a live socket, with changes while packets come.
//
// rows: IPM-18
func TestFilterOnSocket(t *testing.T) {
	f := newFilter(t)
	to, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	must(t, err)
	defer to.Close()
	raw, err := to.SyscallConn()
	must(t, err)
	must(t, raw.Control(func(fd uintptr) { err = f.Attach(int(fd)) }))
	must(t, err)
	from, err := net.Dial("udp4", to.LocalAddr().String())
	must(t, err)
	defer from.Close()
	round := func(groups ...uint32) (got []uint32) {
		t.Helper()
		for _, g := range groups {
			_, err := from.Write(packet(g, 200))
			must(t, err)
		}
		_, err := from.Write([]byte("end"))
		must(t, err)
		b := make([]byte, 2000)
		for {
			must(t, to.SetReadDeadline(time.Now().Add(10*time.Second)))
			n, err := to.Read(b)
			must(t, err)
			if n == 3 {
				return got
			}
			if n != 200 {
				t.Fatalf("a packet of 200 bytes has %d", n)
			}
			got = append(got, uint32(b[12])|uint32(b[13])<<8|uint32(b[14])<<16|uint32(b[15])<<24)
		}
	}
	big := uint32(0xfedcba98)
	expect := func(got []uint32, want string) {
		t.Helper()
		if fmt.Sprint(got) != want {
			t.Errorf("groups %v came, want %s", got, want)
		}
	}
	expect(round(1, 2, big, 0), "[0]")
	must(t, errors.Join(f.Admit(2), f.Admit(big)))
	expect(round(1, 2, big, 0), fmt.Sprint([]uint32{2, big, 0}))
	must(t, errors.Join(f.Revoke(2), f.Revoke(2), f.Revoke(3)))
	expect(round(1, 2, big, 0), fmt.Sprint([]uint32{big, 0}))
	passed, dropped, err := f.Counts()
	if passed != 6 || dropped != 6 || err != nil {
		t.Errorf("%d passed, %d dropped, %v, want 6 and 6", passed, dropped, err)
	}
}

// One capability is enough.
func TestFilterPrivileges(t *testing.T) {
	netns.Require(t, "xdp", ProbeFilter())
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var drop []int
	for n := range unix.CAP_LAST_CAP + 1 {
		if n != unix.CAP_BPF {
			drop = append(drop, n)
		}
	}
	back := netns.DropPrivileges(t, drop...)
	f, err := OpenFilter()
	back()
	must(t, err)
	must(t, f.Close())
	if text, err := os.ReadFile("/proc/sys/kernel/unprivileged_bpf_disabled"); err != nil || text[0] == '0' {
		return // here everybody may
	}
	back = netns.DropPrivileges(t)
	_, err = OpenFilter()
	back()
	if !errors.Is(err, &MissingError{Need: NeedCapability}) {
		t.Errorf("without any: %v", err)
	}
}

func TestFilterAfterClose(t *testing.T) {
	netns.Require(t, "xdp", ProbeFilter())
	f, err := OpenFilter()
	must(t, err)
	must(t, errors.Join(f.Close(), f.Close()))
	_, _, countErr := f.Counts()
	for _, err := range []error{f.Attach(0), f.Admit(1), f.Revoke(1), countErr} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	}
}
