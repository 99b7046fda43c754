package xdp

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/khamsin-io/khamsin/bpf"
	"github.com/khamsin-io/khamsin/dataplane/frame"
	"github.com/khamsin-io/khamsin/internal/netns"
)

// What cannot work is said, with what to do.
func TestRefusals(t *testing.T) {
	requireXDP(t)
	h := netns.Pair(t, prefix, netns.Options{Queues: 2})[0]
	openUntilEnd(t, h, Config{Queues: []int{0}})
	for _, tc := range []struct {
		name string
		cfg  Config
		need bpf.Need
		text string
	}{
		{"MTU above the interface's", Config{MTU: 1473}, bpf.NeedMTU, "takes 1472"},
		{"queue that is not there", Config{Queues: []int{1, 5}}, bpf.NeedQueue, "queue 5"},
		{"first queue that is not there", Config{Queues: []int{2}}, bpf.NeedQueue, "queue 2"},
		{"queue that is taken", Config{Queues: []int{0}}, bpf.NeedQueue, "another process"},
		{"queue beyond the program's", Config{Queues: []int{64}}, 0, "queue 64"},
		{"ring", Config{RxRing: 1000}, 0, "RxRing 1000"},
		{"headroom", Config{Arena: frame.Config{Headroom: 100}}, 0, "Headroom 100"},
		{"chunk", Config{Arena: frame.Config{ChunkSize: 1024, Headroom: 300}}, 0, "ChunkSize 1024"},
		{"runs", Config{Arena: frame.Config{RunChunks: 2}}, 0, "RunChunks 2"},
		{"MTU beyond a chunk", Config{MTU: 1400, Arena: frame.Config{ChunkSize: 2048, Headroom: 900}}, 0, "MTU 1400"},
		{"MTU beyond all", Config{MTU: MTUMax + 1}, 0, "MTU 16001"},
	} {
		tr, err := tryOpen(h, tc.cfg)
		if err == nil {
			t.Errorf("%s: opened", tc.name)
			check(t, tr.Close())
			continue
		}
		if !strings.Contains(err.Error(), tc.text) ||
			tc.need != 0 && !errors.Is(err, &bpf.MissingError{Need: tc.need}) {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
	for name, want := range map[string]string{
		"": "name an Ethernet interface", "lo": "no Ethernet", "nosuch0": "nosuch0",
	} {
		if _, err := Open(Config{Interface: name}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("interface %q: %v", name, err)
		}
	}
}

// Packets in several chunks take a newer kernel than all else, and Open says so.
func TestOldKernel(t *testing.T) {
	requireXDP(t)
	h := netns.Pair(t, prefix, netns.Options{MTU: 9000})[0]
	tr, err := tryOpen(h, Config{MTU: 8972})
	if err == nil {
		check(t, tr.Close())
	}
	if old := oldForSegments(t); old != errors.Is(err, &bpf.MissingError{Need: bpf.NeedKernel}) ||
		old != (err != nil) || old && !strings.Contains(err.Error(), "Linux 6.6") {
		t.Errorf("too old: %v; %v", old, err)
	}
}

// Without privileges Open says which ones are missing.
func TestNoPrivilege(t *testing.T) {
	requireXDP(t)
	h := netns.Pair(t, prefix, netns.Options{})[0]
	var err error
	h.Do(func() {
		back := netns.DropPrivileges(t)
		defer back()
		_, err = Open(Config{Interface: netns.Interface})
	})
	if !errors.Is(err, &bpf.MissingError{Need: bpf.NeedCapability}) ||
		!strings.Contains(err.Error(), "CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF, CAP_PERFMON") {
		t.Fatalf("Open: %v", err)
	}
}

// Five capabilities are enough for an interface of one's own, and a sixth is named when it is to be shared.
func TestFewPrivileges(t *testing.T) {
	requireXDP(t)
	h := netns.Pair(t, prefix, netns.Options{Queues: 2})[0]
	enough := []int{unix.CAP_NET_ADMIN, unix.CAP_NET_RAW, unix.CAP_BPF, unix.CAP_PERFMON, unix.CAP_IPC_LOCK}
	var drop []int
	for n := range unix.CAP_LAST_CAP + 1 {
		if !slices.Contains(enough, n) {
			drop = append(drop, n)
		}
	}
	var tr *Transport
	var errs [2]error
	h.Do(func() {
		back := netns.DropPrivileges(t, drop...)
		defer back()
		tr, errs[0] = Open(Config{Interface: netns.Interface, GroupPort: groupPort, Queues: []int{0}})
		_, errs[1] = Open(Config{Interface: netns.Interface, Queues: []int{1}})
	})
	check(t, errs[0])
	check(t, tr.Subscribe(9), tr.Close())
	if !errors.Is(errs[1], &bpf.MissingError{Need: bpf.NeedCapability}) ||
		!strings.Contains(errs[1].Error(), "CAP_SYS_ADMIN") {
		t.Errorf("the second Open: %v", errs[1])
	}
}

// An arena that may not be locked in memory is said to be the reason.
func TestLockedMemory(t *testing.T) {
	requireXDP(t)
	h := netns.Pair(t, prefix, netns.Options{})[0]
	var had unix.Rlimit
	check(t, unix.Getrlimit(unix.RLIMIT_MEMLOCK, &had))
	check(t, unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unix.Rlimit{Cur: 1 << 20, Max: had.Max}))
	defer func() { check(t, unix.Setrlimit(unix.RLIMIT_MEMLOCK, &had)) }()
	var err error
	h.Do(func() {
		back := netns.DropPrivileges(t, unix.CAP_IPC_LOCK)
		defer back()
		_, err = Open(Config{Interface: netns.Interface})
	})
	if !errors.Is(err, &bpf.MissingError{Need: bpf.NeedMemlock}) || !strings.Contains(err.Error(), "CAP_IPC_LOCK") {
		t.Fatalf("Open: %v", err)
	}
	if left := state(h); strings.Contains(left, "program true") {
		t.Errorf("a failed Open leaves %s", left)
	}
}
