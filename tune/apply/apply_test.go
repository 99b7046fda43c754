package apply

import (
	"errors"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/khamsin-io/khamsin/tune"
	"github.com/khamsin-io/khamsin/tune/hostview"
)

// fakeKernel has one interface, eth1, whose MTU and rings lie in files, so that they outlive a killed process.
type fakeKernel struct {
	root string
	deny bool
}

func (k *fakeKernel) file(name string) string { return filepath.Join(k.root, "kernel", name) }

func (k *fakeKernel) Link(name string) (hostview.Link, error) {
	if name != "eth1" {
		return hostview.Link{}, errors.New("no such interface")
	}
	text, err := os.ReadFile(k.file("mtu"))
	mtu, _ := strconv.Atoi(string(text))
	return hostview.Link{Index: 3, MTU: mtu}, err
}

func (k *fakeKernel) SetMTU(_ string, mtu int) error {
	return os.WriteFile(k.file("mtu"), []byte(strconv.Itoa(mtu)), 0o600)
}

func (k *fakeKernel) Rings(string) (hostview.Rings, error) {
	return hostview.Rings{Rx: 256, RxMax: 4096, Tx: 256, TxMax: 4096}, nil
}

func (k *fakeKernel) SetRings(string, int, int) error          { return errors.New("rings stay as they are") }
func (k *fakeKernel) MayConfigure() bool                       { return !k.deny }
func (k *fakeKernel) PathMTU(netip.Addr) (int, error)          { return 0, errors.ErrUnsupported }
func (k *fakeKernel) XDP(int) (hostview.XDP, error)            { return hostview.XDP{}, errors.ErrUnsupported }
func (k *fakeKernel) Features(string) (map[string]bool, error) { return nil, errors.ErrUnsupported }
func (k *fakeKernel) Channels(string) (c hostview.Channels, err error) {
	return c, errors.ErrUnsupported
}
func (k *fakeKernel) Coalesce(string) (c hostview.Coalesce, err error) {
	return c, errors.ErrUnsupported
}
func (k *fakeKernel) Buffers(int, int) (g hostview.Granted, err error) {
	return g, errors.ErrUnsupported
}

const (
	rmem = "/proc/sys/net/core/rmem_max"
	umem = "/proc/sys/net/ipv4/udp_mem"
	huge = "/sys/kernel/mm/transparent_hugepage/enabled"
)

// before is the host's settings before anything is changed.
func before() map[string]string {
	return map[string]string{rmem: "212992\n", umem: "1\t2\t3\n", huge: "always\n", "kernel/mtu": "1500"}
}

// wanted is what the tests ask for.
func wanted() []tune.Change {
	return []tune.Change{
		{Kind: tune.Sysctl, Target: "net.core.rmem_max", Value: "4194304"},
		{Kind: tune.Sysctl, Target: "net.ipv4.udp_mem", Value: "10 20 30"},
		{Kind: tune.SysFS, Target: huge, Value: "madvise"},
		{Kind: tune.MTU, Target: "eth1", Value: "9000"},
	}
}

func makeHost(t testing.TB, files map[string]string) (*hostview.Host, string) {
	t.Helper()
	root := t.TempDir()
	for path, text := range files {
		full := filepath.Join(root, path)
		if err := errors.Join(os.MkdirAll(filepath.Dir(full), 0o755), os.WriteFile(full, []byte(text),
			0o600)); err != nil {
			t.Fatal(err)
		}
	}
	return hostview.At(root, &fakeKernel{root: root}), root
}

// snapshot returns every file below a root, with white space made equal.
func snapshot(t testing.TB, root string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, _ := filepath.Rel(root, path)
		if d.Type()&os.ModeSymlink != 0 {
			all[name], err = os.Readlink(path)
			return err
		}
		text, err := os.ReadFile(path)
		all[name] = strings.Join(strings.Fields(string(text)), " ")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// rows: TUN-04, TUN-05, TUN-06
func TestApplyAndRevert(t *testing.T) {
	h, root := makeHost(t, before())
	was := snapshot(t, root)
	o := Options{Interface: "eth1", Persist: true}
	outcomes, err := Apply(h, wanted(), o)
	if err != nil {
		t.Fatal(err)
	}
	for _, out := range outcomes {
		if !out.Done {
			t.Errorf("%+v", out)
		}
	}
	now := snapshot(t, root)
	for path, want := range map[string]string{rmem: "4194304", umem: "10 20 30", huge: "madvise",
		"/kernel/mtu": "9000"} {
		if got := now[path[1:]]; got != want {
			t.Errorf("%s is %q, want %q", path, got, want)
		}
	}
	for path, want := range map[string][]string{
		SysctlFile: {"net.core.rmem_max = 4194304", "net.ipv4.udp_mem = 10 20 30"},
		UnitFile:   {"ip link set dev eth1 mtu 9000", "echo madvise > " + huge, "WantedBy=multi-user.target"},
		unitLink:   {UnitFile},
	} {
		for _, line := range want {
			if !strings.Contains(now[path[1:]], line) {
				t.Errorf("%s does not hold %q: %s", path, line, now[path[1:]])
			}
		}
	}
	outcomes, err = Revert(h, o)
	if err != nil || len(outcomes) != 7 {
		t.Errorf("%d outcomes, %v", len(outcomes), err)
	}
	if got := snapshot(t, root); !maps.Equal(got, was) {
		t.Errorf("after revert %v, before apply %v", got, was)
	}
	if outcomes, err = Revert(h, o); err != nil || len(outcomes) != 0 {
		t.Errorf("second revert: %v, %v", outcomes, err)
	}
}

// Changes on top of changes are undone down to the first value, and files of earlier runs are kept and then restored.
func TestRevertOfSeveralRuns(t *testing.T) {
	files := before()
	files[SysctlFile] = "# by hand\nkernel.pid_max = 5\nnet.core.rmem_max = 7\n"
	h, root := makeHost(t, files)
	was := snapshot(t, root)
	for _, value := range []string{"300000", "400000", "212992", "500000"} {
		changes := []tune.Change{{Kind: tune.Sysctl, Target: "net.core.rmem_max", Value: value}}
		if _, err := Apply(h, changes, Options{Persist: true}); err != nil {
			t.Fatal(err)
		}
		text := snapshot(t, root)[SysctlFile[1:]]
		if !strings.Contains(text, "kernel.pid_max = 5") || strings.Count(text, "rmem_max") != 1 {
			t.Errorf("persistent file: %s", text)
		}
	}
	if _, err := Revert(h, Options{}); err != nil {
		t.Fatal(err)
	}
	if got := snapshot(t, root); !maps.Equal(got, was) {
		t.Errorf("after revert %v, before apply %v", got, was)
	}
}

// What somebody else changed meanwhile is left alone and said; the rest is restored.
func TestRevertLeavesOthersChanges(t *testing.T) {
	h, root := makeHost(t, before())
	if _, err := Apply(h, wanted(), Options{Interface: "eth1", Persist: true}); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(h.Write(rmem, "777"), h.Write(SysctlFile, "mine")); err != nil {
		t.Fatal(err)
	}
	outcomes, err := Revert(h, Options{})
	if err != nil {
		t.Fatal(err)
	}
	left := 0
	for _, out := range outcomes {
		if strings.HasPrefix(out.Note, "left alone") && !out.Done {
			left++
		}
	}
	now := snapshot(t, root)
	if left != 2 || now[rmem[1:]] != "777" || now[SysctlFile[1:]] != "mine" || now[umem[1:]] != "1 2 3" {
		t.Errorf("left %d, %v", left, now)
	}
}

func TestNothingIsChangedWhenRefused(t *testing.T) {
	for _, c := range []struct {
		name    string
		changes []tune.Change
		o       Options
		spoil   func(t *testing.T, h *hostview.Host, root string) *hostview.Host
		want    string
	}{
		{"interface not named", wanted(), Options{}, nil, "not named"},
		{"another interface", wanted(), Options{Interface: "eth2"}, nil, "not named"},
		{"sysctl of an interface", []tune.Change{{Kind: tune.Sysctl, Target: "net.ipv4.conf.eth1.rp_filter",
			Value: "2"}},
			Options{Interface: "eth2"}, nil, "not named"},
		{"missing setting", append(wanted(), tune.Change{Kind: tune.Sysctl, Target: "net.none", Value: "1"}),
			Options{Interface: "eth1"}, nil, "no such file"},
		{"no privilege", wanted(), Options{Interface: "eth1"},
			func(_ *testing.T, _ *hostview.Host, root string) *hostview.Host {
				return hostview.At(root, &fakeKernel{root: root, deny: true})
			}, "privilege"},
		{"journal is a directory", wanted(), Options{Interface: "eth1", Journal: "/kernel"}, nil, "is a directory"},
		{"journal is a device", wanted(), Options{Interface: "eth1", Journal: "/full"},
			func(t *testing.T, h *hostview.Host, root string) *hostview.Host {
				if err := os.Symlink("/dev/full", filepath.Join(root, "full")); err != nil {
					t.Fatal(err)
				}
				return h
			}, "not a regular file"},
		{"damaged journal", wanted(), Options{Interface: "eth1", Journal: "/kernel/j"},
			func(t *testing.T, h *hostview.Host, root string) *hostview.Host {
				if err := os.WriteFile(filepath.Join(root, "kernel/j"), []byte("00000000 {}\n"), 0o600); err != nil {
					t.Fatal(err)
				}
				return h
			}, "line 1: damaged"},
		{"journal is in use", wanted(), Options{Interface: "eth1"},
			func(t *testing.T, h *hostview.Host, root string) *hostview.Host {
				j, err := openJournal(h.Path(DefaultJournal), true)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = j.close() })
				return h
			}, "another run"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h, root := makeHost(t, before())
			if c.spoil != nil {
				h = c.spoil(t, h, root)
			}
			was := snapshot(t, root)
			outcomes, err := Apply(h, c.changes, c.o)
			if err == nil || len(outcomes) > 0 || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, %v; want %q", outcomes, err, c.want)
			}
			if got := snapshot(t, root); !maps.Equal(got, was) {
				t.Errorf("changed: %v, was %v", got, was)
			}
			var denied *PrivilegeError
			if errors.As(err, &denied) && len(denied.Changes) != len(c.changes) {
				t.Errorf("refusal names %d changes of %d", len(denied.Changes), len(c.changes))
			}
		})
	}
}

// A setting that does not take its value stops the run; what was done before is in the journal.
func TestFailureInTheMiddle(t *testing.T) {
	h, root := makeHost(t, before())
	was := snapshot(t, root)
	changes := append(wanted()[:2:2], tune.Change{Kind: tune.Rings, Target: "eth1", Value: "4096 4096"}, wanted()[2])
	outcomes, err := Apply(h, changes, Options{Interface: "eth1"})
	if err == nil || len(outcomes) != 3 || outcomes[2].Done || !outcomes[1].Done {
		t.Errorf("%v, %v", outcomes, err)
	}
	if now := snapshot(t, root); now[huge[1:]] != "always" || now[rmem[1:]] != "4194304" {
		t.Errorf("%v", now)
	}
	if _, err := Revert(h, Options{}); err != nil {
		t.Fatal(err)
	}
	if got := snapshot(t, root); !maps.Equal(got, was) {
		t.Errorf("after revert %v, before %v", got, was)
	}
}

func TestNothingToDo(t *testing.T) {
	h, root := makeHost(t, before())
	was := snapshot(t, root)
	out, err := Apply(h, []tune.Change{{Kind: tune.Sysctl, Target: "net.ipv4.udp_mem", Value: "1 2 3"}}, Options{})
	if err != nil || len(out) != 0 {
		t.Errorf("%v, %v", out, err)
	}
	if got := snapshot(t, root); !maps.Equal(got, was) {
		t.Errorf("left something behind: %v", got)
	}
}

func TestNormal(t *testing.T) {
	for text, want := range map[string]string{
		"1\t2\t3\n": "1 2 3", "always [madvise] never": "madvise", "00000000,00000003": "3", "000f": "f", "0": "0",
		"00":          "0",
		"performance": "performance", "[": "[", "": "", "-1": "-1",
	} {
		if got := normal(text); got != want {
			t.Errorf("%q becomes %q, want %q", text, got, want)
		}
	}
}

// Only what a name means is chosen, and an interface that was not named is never among it.
func TestSelect(t *testing.T) {
	change := wanted()
	r := tune.Report{Findings: []tune.Finding{
		{Setting: "net.core.rmem_max", Severity: tune.High, Changes: change[:1]},
		{Setting: "transparent huge pages", Severity: tune.Low, Changes: change[2:3]},
		{Setting: "MTU for bulk", Severity: tune.Low, Changes: change[3:]},
		{Setting: "clock source", Severity: tune.Medium, Fix: "boot differently"},
		{Setting: "rings", Severity: tune.Unknown, Why: "no driver"},
		{Setting: "swap", Severity: tune.OK, Found: "none"},
	}}
	for _, c := range []struct {
		names []string
		iface string
		want  int
		err   string
	}{
		{nil, "", 2, ""},
		{nil, "eth1", 3, ""},
		{[]string{"net.core.rmem_max"}, "", 1, ""},
		{[]string{huge, "MTU for bulk"}, "eth1", 2, ""},
		{[]string{"MTU for bulk"}, "", 0, "say --iface eth1"},
		{[]string{"MTU for bulk"}, "eth2", 0, "say --iface eth1"},
		{[]string{"clock source"}, "", 0, "cannot be changed from here: boot differently"},
		{[]string{"rings"}, "", 0, "no driver"},
		{[]string{"swap"}, "", 0, "is right already"},
		{[]string{"x", "y"}, "", 0, "y: no such setting"},
	} {
		got, err := Select(r, c.names, c.iface)
		if c.err == "" && (err != nil || len(got) != c.want) {
			t.Errorf("%v: %v, %v", c.names, got, err)
		}
		if c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%v: %v, want %q", c.names, err, c.err)
		}
	}
}
