package apply

import (
	"os/exec"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"

	"github.com/khamsin-io/khamsin/tune"
)

// hostile is a plan with names that mean something to shells and templates.
func hostile() []tune.Change {
	return append(wanted(),
		tune.Change{Kind: tune.MTU, Target: "a;reboot", Value: "9000"},
		tune.Change{Kind: tune.MTU, Target: "it's{{x}}", Value: "9000"},
		tune.Change{Kind: tune.Rings, Target: "eth1", Value: "4096 512"})
}

// The script, run by a shell whose commands are replaced by echo, gives each command exactly the words meant.
func TestExportShell(t *testing.T) {
	text, err := Export(hostile(), Shell)
	if err != nil {
		t.Fatal(err)
	}
	const stubs = "sysctl() { printf 'sysctl %s|%s\\n' \"$@\"; }\nip() { printf '<%s>' \"$@\"; echo; }\n" +
		"ethtool() { printf '<%s>' \"$@\"; echo; }\n"
	text = strings.ReplaceAll(text, "> "+huge, "")
	out, err := exec.Command("sh", "-c", stubs+text).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	want := `sysctl -w|net.core.rmem_max=4194304
sysctl -w|net.ipv4.udp_mem=10 20 30
madvise
<link><set><dev><eth1><mtu><9000>
<link><set><dev><a;reboot><mtu><9000>
<link><set><dev><it's{{x}}><mtu><9000>
<-G><eth1><rx><4096><tx><512>
`
	if string(out) != want {
		t.Errorf("%s\nwant\n%s", out, want)
	}
}

func TestExportAnsible(t *testing.T) {
	text, err := Export(hostile(), Ansible)
	if err != nil {
		t.Fatal(err)
	}
	var tasks []struct {
		Name   string                       `yaml:"name"`
		Sysctl struct{ Name, Value string } `yaml:"ansible.posix.sysctl"`
		Shell  string                       `yaml:"ansible.builtin.shell"`
	}
	if err := yaml.Unmarshal([]byte(text), &tasks); err != nil {
		t.Fatalf("%v:\n%s", err, text)
	}
	if len(tasks) != len(hostile()) || tasks[1].Sysctl.Name != "net.ipv4.udp_mem" ||
		tasks[1].Sysctl.Value != "10 20 30" ||
		tasks[3].Shell != "ip link set dev eth1 mtu 9000" || strings.Contains(tasks[5].Shell, "{{x") {
		t.Errorf("%+v", tasks)
	}
}

func TestExportKubernetes(t *testing.T) {
	text, err := Export(hostile(), Kubernetes)
	if err != nil {
		t.Fatal(err)
	}
	var set struct {
		Kind string
		Spec struct {
			Template struct {
				Spec struct {
					HostNetwork    bool `yaml:"hostNetwork"`
					InitContainers []struct {
						Command, Args   []string
						SecurityContext struct{ Privileged bool } `yaml:"securityContext"`
					} `yaml:"initContainers"`
				}
			}
		}
	}
	if err := yaml.Unmarshal([]byte(text), &set); err != nil {
		t.Fatalf("%v:\n%s", err, text)
	}
	init := set.Spec.Template.Spec.InitContainers
	if set.Kind != "DaemonSet" || !set.Spec.Template.Spec.HostNetwork || len(init) != 1 ||
		!init[0].SecurityContext.Privileged {
		t.Fatalf("%+v", set)
	}
	for _, c := range hostile() {
		if !strings.Contains(init[0].Args[0], c.Command()+"\n") {
			t.Errorf("no %q in %q", c.Command(), init[0].Args[0])
		}
	}
	if _, err := Export(nil, "paper"); err == nil {
		t.Error("unknown format accepted")
	}
}

func FuzzDecodeJournal(f *testing.F) {
	line, err := entry{Kind: tune.Sysctl, Target: "a", Old: "1", New: "2"}.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(line + line)
	f.Add(line + "12")
	f.Add("\n\n")
	f.Fuzz(func(t *testing.T, text string) {
		entries, good, err := decodeAll(text)
		if err != nil {
			return
		}
		again, _, err := decodeAll(text[:good])
		if err != nil || len(again) != len(entries) || good > len(text) {
			t.Errorf("good part of %q is read as %d entries, %v, not %d", text, len(again), err, len(entries))
		}
	})
}
