package tune

import (
	"fmt"
	"regexp"
	"strings"
)

// ChangeKind says how a setting is changed.
type ChangeKind string

// The kinds of changes.
const (
	Sysctl ChangeKind = "sysctl" // a file below /proc/sys
	SysFS  ChangeKind = "sysfs"  // a file below /sys
	MTU    ChangeKind = "mtu"    // of an interface
	Rings  ChangeKind = "rings"  // of an interface
)

// Change is one setting that can be changed and changed back.
type Change struct {
	Kind   ChangeKind
	Target string // name of the sysctl, path of the file, or interface
	Value  string // Rings: "RX TX"
}

// Interface returns the interface that the change is about, empty when it is about the whole host.
func (c Change) Interface() string {
	switch c.Kind {
	case MTU, Rings:
		return c.Target
	case Sysctl:
		if rest, ok := strings.CutPrefix(c.Target, "net.ipv4.conf."); ok {
			name, _, _ := strings.Cut(rest, ".")
			if name != "all" && name != "default" {
				return strings.ReplaceAll(name, "/", ".")
			}
		}
	case SysFS:
		if rest, ok := strings.CutPrefix(c.Target, "/sys/class/net/"); ok {
			name, _, _ := strings.Cut(rest, "/")
			return name
		}
	}
	return ""
}

// Path returns the file that holds the setting, empty when none does.
func (c Change) Path() string {
	switch c.Kind {
	case Sysctl:
		return sysctlPath(c.Target)
	case SysFS:
		return c.Target
	}
	return ""
}

// Command returns the shell command that makes the change.
func (c Change) Command() string {
	switch c.Kind {
	case Sysctl:
		return "sysctl -w " + quote(c.Target+"="+c.Value)
	case SysFS:
		return fmt.Sprintf("echo %s > %s", quote(c.Value), quote(c.Target))
	case MTU:
		return fmt.Sprintf("ip link set dev %s mtu %s", quote(c.Target), quote(c.Value))
	case Rings:
		rx, tx, _ := strings.Cut(c.Value, " ")
		return fmt.Sprintf("ethtool -G %s rx %s tx %s", quote(c.Target), quote(rx), quote(tx))
	}
	return ""
}

// commands returns the shell commands that make changes, joined to one.
func commands(all []Change) string {
	each := make([]string, len(all))
	for i, c := range all {
		each[i] = c.Command()
	}
	return strings.Join(each, " && ")
}

// plainWord matches what a shell takes as it stands.
var plainWord = regexp.MustCompile(`^[A-Za-z0-9_./:=@+-]+$`)

// quote makes text one word of a shell, whatever is in it: the name of an interface may hold nearly anything.
func quote(text string) string {
	if plainWord.MatchString(text) {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}

// sysctlPath returns the file of a sysctl. As in sysctl(8), a slash in the name stands for a dot in the file's.
func sysctlPath(name string) string {
	swap := strings.NewReplacer(".", "/", "/", ".")
	return "/proc/sys/" + swap.Replace(name)
}
