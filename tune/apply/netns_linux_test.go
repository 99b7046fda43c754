package apply

import (
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/khamsin-io/khamsin/tune"
	"github.com/khamsin-io/khamsin/tune/hostview"
)

const (
	vethName    = "ktun0"
	vethPeer    = "ktun1"
	memberships = "net.ipv4.igmp_max_memberships"
	strictPath  = "net.ipv4.conf." + vethName + ".rp_filter"
)

// addVeth gives the namespace a pair of interfaces and a loopback that is up, and settings that the library does not
// want.
func addVeth(t *testing.T, h *hostview.Host) {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = vethName, 1500
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: vethPeer}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"lo", vethName, vethPeer} {
		l, err := netlink.LinkByName(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := netlink.LinkSetUp(l); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(h.Write("/proc/sys/net/ipv4/igmp_max_memberships", "20"),
		h.Write("/proc/sys/net/ipv4/conf/"+vethName+"/rp_filter", "1")); err != nil {
		t.Fatal(err)
	}
}

// here returns this computer's kernel, in the namespace of the process.
func here(t *testing.T) *hostview.Host {
	t.Helper()
	h, err := hostview.Here()
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// values reads the settings that the tests change.
func values(t *testing.T, h *hostview.Host) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, c := range []tune.Change{
		{Kind: tune.Sysctl, Target: memberships}, {Kind: tune.Sysctl, Target: strictPath},
		{Kind: tune.MTU, Target: vethName}, {Kind: tune.MTU, Target: vethPeer},
	} {
		text, err := read(h, c)
		if err != nil {
			t.Fatal(err)
		}
		all[string(c.Kind)+" "+c.Target] = text
	}
	return all
}

// settled returns what a check says of the settings that the tests change.
func settled(t *testing.T, h *hostview.Host) (tune.Report, map[string]tune.Severity) {
	t.Helper()
	r, err := tune.Check(h, tune.Options{Profile: tune.Bulk, Interface: vethName})
	if err != nil {
		t.Fatal(err)
	}
	said := map[string]tune.Severity{}
	for _, f := range r.Findings {
		said[f.Setting] = f.Severity
	}
	return r, said
}

// A check in a real namespace finds what is wrong, apply mends it, a second check finds it right, and revert restores
// every value.
//
// rows: TUN-10, TUN-12
func TestInANamespace(t *testing.T) {
	inNamespaces(t, func(t *testing.T) {
		h := here(t)
		addVeth(t, h)
		o := Options{Interface: vethName, Journal: filepath.Join(t.TempDir(), "journal")}
		names := []string{memberships, strictPath, "MTU for bulk"}
		was := values(t, h)
		r, said := settled(t, h)
		for _, name := range names {
			if !said[name].Wrong() {
				t.Errorf("before: %s is %s", name, said[name])
			}
		}
		changes, err := Select(r, names, vethName)
		if err != nil || len(changes) != len(names) {
			t.Fatalf("%v, %v", changes, err)
		}
		if _, err := Apply(h, changes, o); err != nil {
			t.Fatal(err)
		}
		now := values(t, h)
		if now["sysctl "+memberships] != "64" || now["sysctl "+strictPath] != "2" || now["mtu "+vethName] != "9000" ||
			now["mtu "+vethPeer] != "1500" {
			t.Errorf("after apply: %v", now)
		}
		_, said = settled(t, h)
		for _, name := range names {
			if said[name] != tune.OK {
				t.Errorf("after: %s is %s", name, said[name])
			}
		}
		if _, err := Revert(h, o); err != nil {
			t.Fatal(err)
		}
		if got := values(t, h); !maps.Equal(got, was) {
			t.Errorf("after revert %v, before apply %v", got, was)
		}
	})
}

// The host's own limits can be seen from inside a namespace and not changed: that is a refusal, not a half-done plan.
func TestHostLimitFromANamespace(t *testing.T) {
	inNamespaces(t, func(t *testing.T) {
		h := here(t)
		addVeth(t, h)
		limit, err := h.Int("/proc/sys/net/core/rmem_max")
		if errors.Is(err, os.ErrNotExist) {
			t.Skip("this kernel shows no rmem_max in a namespace")
		}
		if err != nil {
			t.Fatal(err)
		}
		was := values(t, h)
		var denied *PrivilegeError
		out, err := Apply(h, []tune.Change{
			{Kind: tune.Sysctl, Target: memberships, Value: "99"},
			{Kind: tune.Sysctl, Target: "net.core.rmem_max", Value: strconv.FormatInt(limit+1, 10)},
		}, Options{Journal: filepath.Join(t.TempDir(), "journal")})
		if !errors.As(err, &denied) || len(out) > 0 {
			t.Errorf("%v, %v", out, err)
		}
		if got := values(t, h); !maps.Equal(got, was) {
			t.Errorf("changed: %v", got)
		}
	})
}

// TestNamespaceCrashChild is no test of its own: TestKilledInANamespace kills it.
func TestNamespaceCrashChild(t *testing.T) {
	journal := os.Getenv(crashRoot)
	if journal == "" || os.Getenv("KHAMSIN_TEST_VETH") == "" {
		return
	}
	step, err := strconv.Atoi(os.Getenv(crashStep))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Apply(here(t), namespaceChanges(), Options{Interface: vethName, Journal: journal,
		step: killAt(step)}); err != nil {
		t.Fatal(err)
	}
}

func namespaceChanges() []tune.Change {
	return []tune.Change{
		{Kind: tune.Sysctl, Target: memberships, Value: "64"},
		{Kind: tune.MTU, Target: vethName, Value: "9000"},
		{Kind: tune.Sysctl, Target: strictPath, Value: "2"},
	}
}

// kill -9 in the middle of a change of real settings, then revert: every value is as before.
func TestKilledInANamespace(t *testing.T) {
	inNamespaces(t, func(t *testing.T) {
		h := here(t)
		addVeth(t, h)
		was := values(t, h)
		changed := false
		for step := range len(namespaceChanges()) + 1 {
			journal := filepath.Join(t.TempDir(), "journal")
			child := exec.Command(os.Args[0], "-test.run=^TestNamespaceCrashChild$")
			child.Env = append(os.Environ(), crashRoot+"="+journal, crashStep+"="+strconv.Itoa(step),
				"KHAMSIN_TEST_VETH=1")
			out, err := child.CombinedOutput()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
				t.Fatalf("step %d: not killed: %v: %s", step, err, out)
			}
			changed = changed || !maps.Equal(values(t, h), was)
			if _, err := Revert(h, Options{Journal: journal}); err != nil {
				t.Fatal(err)
			}
			if got := values(t, h); !maps.Equal(got, was) {
				t.Errorf("step %d: after revert %v, before apply %v", step, got, was)
			}
		}
		if !changed {
			t.Error("no killed run had changed anything")
		}
	})
}
