package tuning

import (
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/khamsin-io/khamsin/tune"
)

// goodFiles are what a check reads of a host of which there are only files, all as they should be.
func goodFiles() map[string]string {
	return map[string]string{
		"/proc/sys/net/core/rmem_max":             "16777216",
		"/proc/sys/net/core/wmem_max":             "16777216",
		"/proc/sys/net/core/netdev_max_backlog":   "10000",
		"/proc/sys/net/core/netdev_budget":        "600",
		"/proc/sys/net/core/netdev_budget_usecs":  "8000",
		"/proc/sys/net/ipv4/igmp_max_memberships": "256",
		"/proc/sys/net/ipv4/igmp_max_msf":         "64",
		"/proc/sys/net/ipv4/udp_mem":              "575802 767738 1151604",
	}
}

func source(t *testing.T, change map[string]string) Source {
	t.Helper()
	root := t.TempDir()
	files := goodFiles()
	maps.Copy(files, change)
	for path, text := range files {
		full := filepath.Join(root, path)
		if err := errors.Join(os.MkdirAll(filepath.Dir(full), 0o755), os.WriteFile(full, []byte(text),
			0o600)); err != nil {
			t.Fatal(err)
		}
	}
	return Source{Goal: Goal{Profile: "throughput", Transport: "udp"}, Root: root}
}

func status(err error) int {
	if err == nil {
		return 0
	}
	n, _ := Status(err)
	return n
}

// The exit status says whether nothing is wrong, something is, or the check could not be made, and the JSON form says
// what.
func TestStatusOfCheck(t *testing.T) {
	for _, asJSON := range []bool{false, true} {
		var out strings.Builder
		if got := status(Check(&out, source(t, nil), asJSON)); got != 0 {
			t.Errorf("good host: status %d: %s", got, &out)
		}
		out.Reset()
		small := source(t, map[string]string{"/proc/sys/net/core/rmem_max": "212992"})
		if got := status(Check(&out, small, asJSON)); got != ExitWrong || !strings.Contains(out.String(),
			"rmem_max=4194304") {
			t.Errorf("small buffers: status %d: %s", got, &out)
		}
		if asJSON {
			var report struct{ Findings []tune.Finding }
			if err := json.Unmarshal([]byte(out.String()), &report); err != nil ||
				report.Findings[0].Found != "212992" {
				t.Errorf("%v: %s", err, &out)
			}
		}
	}
	for name, s := range map[string]Source{
		"no files":  {Goal: source(t, nil).Goal, Root: t.TempDir()},
		"bad peer":  {Goal: Goal{Profile: "throughput", Transport: "udp", Peer: "x"}, Root: t.TempDir()},
		"bad name":  {Goal: Goal{Profile: "throughput", Transport: "udp", Iface: "a/b"}, Root: t.TempDir()},
		"no device": {Goal: Goal{Profile: "throughput", Transport: "udp", Iface: "none0"}},
	} {
		var out strings.Builder
		err := Check(&out, s, false)
		if got := status(err); got != ExitFailed || out.Len() > 0 {
			t.Errorf("%s: status %d, %v, %s", name, got, err, &out)
		}
	}
	t.Setenv("ISIS_MAXMSGLEN", "many")
	if got := status(Check(&strings.Builder{}, source(t, nil), false)); got != ExitFailed {
		t.Errorf("bad environment: status %d", got)
	}
}

// The need follows ISIS_MAXMSGLEN, in the manual's terms.
//
// rows: TUN-01, TUN-12
func TestNeedFollowsTheEnvironment(t *testing.T) {
	t.Setenv("ISIS_MAXMSGLEN", "64KB")
	var out strings.Builder
	s := source(t, map[string]string{"/proc/sys/net/core/rmem_max": "4000000"})
	if err := Check(&out, s, false); status(err) != ExitWrong || !strings.Contains(out.String(),
		"64 times the longest packet of 65507") {
		t.Errorf("%v: %s", err, &out)
	}
}

func TestExport(t *testing.T) {
	s := source(t, map[string]string{"/proc/sys/net/core/rmem_max": "1", "/proc/sys/net/core/wmem_max": "1"})
	for format, want := range map[string]string{
		"shell":      "sysctl -w net.core.rmem_max=4194304\n",
		"ansible":    `name: "net.core.rmem_max"`,
		"kubernetes": "kind: DaemonSet",
	} {
		var out strings.Builder
		if err := Export(&out, s, []string{"net.core.rmem_max"}, format); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(out.String(), want) || strings.Contains(out.String(), "wmem") {
			t.Errorf("%s: %s", format, &out)
		}
	}
	if err := Export(&strings.Builder{}, s, []string{"nothing"}, "shell"); status(err) != ExitFailed {
		t.Errorf("unknown setting: %v", err)
	}
}

func TestFlagsOfRevert(t *testing.T) {
	for _, o := range []ApplyOptions{
		{Revert: true, Persist: true}, {Revert: true, DryRun: true}, {Revert: true, Settings: []string{"x"}},
	} {
		if err := Apply(&strings.Builder{}, Goal{}, o); status(err) != ExitFailed {
			t.Errorf("%+v: %v", o, err)
		}
	}
	var out strings.Builder
	o := ApplyOptions{Revert: true, Journal: filepath.Join(t.TempDir(), "none")}
	if err := Apply(&out, Goal{}, o); err != nil || !strings.Contains(out.String(), "nothing to revert") {
		t.Errorf("%v: %s", err, &out)
	}
}
