package bpf

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/khamsin-io/khamsin/internal/netns"
)

const prefix = "kxdp-bpf"

// open opens a demultiplexer on a host.
func open(tb testing.TB, h *netns.Host, cfg DemuxConfig) (d *Demux, err error) {
	tb.Helper()
	h.Do(func() {
		var ifi *net.Interface
		if ifi, err = net.InterfaceByName(netns.Interface); err == nil {
			cfg.IfIndex = ifi.Index
			d, err = OpenDemux(cfg)
		}
	})
	return d, err
}

func mustOpen(tb testing.TB, h *netns.Host, cfg DemuxConfig) *Demux {
	tb.Helper()
	d, err := open(tb, h, cfg)
	must(tb, err)
	tb.Cleanup(func() { must(tb, d.Close()) })
	return d
}

// attached tells what is on the host's interface.
func attached(h *netns.Host) string {
	out := h.Run("ip", "link", "show", "dev", netns.Interface)
	for line := range strings.Lines(out) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, "prog/xdp") {
			return line
		}
	}
	return ""
}

// Transports of one interface share one program, which goes with the last of them.
func TestProgramIsShared(t *testing.T) {
	requireXDP(t)
	h := netns.Pair(t, prefix, netns.Options{})[0]
	first := mustOpen(t, h, DemuxConfig{FrameMax: 2000})
	program := attached(h)
	if program == "" || first.Mode() != ModeNative {
		t.Fatalf("mode %v, attached %q", first.Mode(), program)
	}
	second, third := mustOpen(t, h, DemuxConfig{FrameMax: 2000}), mustOpen(t, h, DemuxConfig{FrameMax: 2000})
	if now := attached(h); now != program || second.Mode() != ModeNative || third.slot == second.slot {
		t.Errorf("attached %q, first %q; slots %d and %d", now, program, second.slot, third.slot)
	}
	for i, to := range []*Demux{first, second, second, third} {
		must(t, to.Listen(byGroup))
		var r demuxRule
		key := keyOf(byGroup, 0, 0)
		must(t, third.at.maps.Rules.Lookup(&key, &r)) // third sees what the others do
		want := uint32(demuxActionACTION_STACK)
		if i == 0 {
			want = uint32(demuxActionACTION_SOCKET)
		}
		if r.Action != want {
			t.Errorf("after %d calls of Listen: %+v", i+1, r)
		}
	}
	must(t, errors.Join(first.Close(), second.Unlisten(byGroup), second.Unlisten(byGroup)))
	var r demuxRule
	key := keyOf(byGroup, 0, 0)
	must(t, third.at.maps.Rules.Lookup(&key, &r))
	if r.Members != 1<<third.slot || r.Action != uint32(demuxActionACTION_SOCKET) || r.Slot != third.slot {
		t.Errorf("one is left: %+v", r)
	}
	if attached(h) != program {
		t.Error("the program went with the process that attached it")
	}
	must(t, errors.Join(second.Close(), third.Close()))
	if left := attached(h); left != "" {
		t.Errorf("%q is left on the interface", left)
	}
	if err := third.Listen(byGroup); !errors.Is(err, ErrClosed) {
		t.Errorf("Listen after Close: %v", err)
	}
}

// Coming, going and changing at the same time never fails, and leaves nothing.
func TestSharingRaces(t *testing.T) {
	requireXDP(t)
	h := netns.Pair(t, prefix, netns.Options{})[0]
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for range 10 {
				d, err := open(t, h, DemuxConfig{ByGroup: true, Exclusive: i%2 == 0})
				if err != nil {
					t.Error(err)
					return
				}
				if err := errors.Join(d.Listen(byGroup), d.Admit(byGroup, uint32(i)), d.Listen(anyMcast)); err != nil {
					t.Error(err)
				}
				if err := d.Close(); err != nil {
					t.Error(err)
				}
			}
		}()
	}
	wg.Wait()
	if left := attached(h); left != "" {
		t.Errorf("%q is left on the interface", left)
	}
}

// Counters come back when rules go, so that they never run out.
func TestRulesComeAndGo(t *testing.T) {
	requireXDP(t)
	h := netns.Pair(t, prefix, netns.Options{})[0]
	d := mustOpen(t, h, DemuxConfig{ByGroup: true})
	must(t, d.Listen(byGroup))
	for round := range 3 {
		for g := range uint32(40) {
			must(t, d.Admit(byGroup, 1+g))
		}
		for g := range uint32(40) {
			must(t, d.Revoke(byGroup, 1+g))
		}
		dir, err := table{&d.at.maps}.directory()
		must(t, err)
		if dir.Counters[0] != 1 {
			t.Fatalf("round %d: counters in use %x", round, dir.Counters[0])
		}
	}
	if _, err := d.Matched(byGroup, 1); err == nil {
		t.Error("a rule that is gone has a counter")
	}
}

// childMark makes the test binary a process that uses a demultiplexer until it is killed.
const childMark = "KHAMSIN_BPF_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childMark) != "" {
		os.Exit(child())
	}
	os.Exit(m.Run())
}

func child() int {
	ifi, err := net.InterfaceByName(netns.Interface)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	d, err := OpenDemux(DemuxConfig{IfIndex: ifi.Index, ByGroup: true, FrameMax: 2000})
	if err == nil {
		err = errors.Join(d.Listen(unicast), d.Listen(byGroup), d.Admit(byGroup, 5))
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println(netns.Ready)
	time.Sleep(time.Hour) // until it is killed
	_ = d.Close()
	return 1
}

// A process that is killed takes the program with it when it was alone, and leaves it to the others when it was not:
// even the one that attached it. What it asked for is cleared away by the next change.
func TestKilledProcess(t *testing.T) {
	requireXDP(t)
	h := netns.Pair(t, prefix, netns.Options{})[0]
	alone := h.StartSelf(childMark)
	if attached(h) == "" {
		t.Fatal("the child attached nothing")
	}
	netns.Kill9(t, alone)
	if left := attached(h); left != "" {
		t.Fatalf("%q is left of a killed process", left)
	}
	attacher := h.StartSelf(childMark)
	program := attached(h)
	d := mustOpen(t, h, DemuxConfig{ByGroup: true})
	netns.Kill9(t, attacher)
	if now := attached(h); now != program {
		t.Fatalf("attached %q, was %q", now, program)
	}
	must(t, d.Listen(byGroup))
	var key demuxRuleKey
	var r demuxRule
	rules := 0
	for it := d.at.maps.Rules.Iterate(); it.Next(&key, &r); rules++ {
		if r.Members != 1<<d.slot {
			t.Errorf("rule %x has members %x", key, r.Members)
		}
	}
	if rules != 1 {
		t.Errorf("%d rules, want the one of the living", rules)
	}
}

// A program of somebody else is left alone.
func TestForeignProgram(t *testing.T) {
	requireXDP(t)
	h := netns.Pair(t, prefix, netns.Options{})[0]
	foreign, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.XDP, Name: "foreign", License: "MIT",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, xdpPass), asm.Return()},
	})
	must(t, err)
	defer foreign.Close()
	h.Do(func() {
		var ifi *net.Interface
		if ifi, err = net.InterfaceByName(netns.Interface); err == nil {
			var l link.Link
			l, err = link.AttachXDP(link.XDPOptions{Program: foreign, Interface: ifi.Index, Flags: link.XDPGenericMode})
			t.Cleanup(func() { must(t, l.Close()) })
		}
	})
	must(t, err)
	_, err = open(t, h, DemuxConfig{})
	if !errors.Is(err, ErrForeignProgram) || !errors.Is(err, &MissingError{Need: NeedInterface}) {
		t.Fatalf("Open beside another program: %v", err)
	}
	if attached(h) == "" {
		t.Error("the other program is gone")
	}
}

// Both modes take jumbo frames on virtual Ethernet, since the program can read frames in several buffers.
func TestModes(t *testing.T) {
	requireXDP(t)
	h := netns.Pair(t, prefix, netns.Options{MTU: 9000})[0]
	for mode, want := range map[Mode]Mode{ModeAuto: ModeNative, ModeNative: ModeNative, ModeGeneric: ModeGeneric} {
		d, err := open(t, h, DemuxConfig{Mode: mode})
		must(t, err)
		if d.Mode() != want {
			t.Errorf("%v became %v", mode, d.Mode())
		}
		second, err := open(t, h, DemuxConfig{}) // takes what is there
		must(t, err)
		if second.Mode() != want {
			t.Errorf("the second one has %v beside %v", second.Mode(), want)
		}
		must(t, errors.Join(d.Close(), second.Close()))
	}
}

// What a driver refuses has a reason that tells what to do.
func TestAttachErrors(t *testing.T) {
	ifi := &netlink.LinkAttrs{Name: "eth7", MTU: 9000}
	for err, need := range map[error]Need{
		unix.ERANGE: NeedMTU, unix.EMSGSIZE: NeedMTU, unix.EOPNOTSUPP: NeedKernel, unix.EPERM: NeedCapability,
	} {
		got := attachError(ifi, ModeNative, err)
		if !errors.Is(got, &MissingError{Need: need}) || !errors.Is(got, err) ||
			!strings.Contains(got.Error(), "eth7") {
			t.Errorf("%v: %v", err, got)
		}
	}
	if err := attachError(ifi, ModeNative, unix.EBUSY); !errors.Is(err, errRace) {
		t.Errorf("EBUSY: %v", err)
	}
}

// The system's words become ours.
func TestExplain(t *testing.T) {
	for err, need := range map[error]Need{
		unix.EPERM: NeedCapability, unix.ENOBUFS: NeedMemlock, unix.ENOMEM: NeedMemlock,
	} {
		got := explain("do it", err)
		if !errors.Is(got, &MissingError{Need: need}) || !errors.Is(got, err) ||
			!strings.Contains(got.Error(), need.String()) {
			t.Errorf("%v: %v", err, got)
		}
	}
	if err := explain("do it", unix.EBADF); errors.As(err, new(*MissingError)) || !errors.Is(err, unix.EBADF) {
		t.Errorf("EBADF: %v", err)
	}
}
