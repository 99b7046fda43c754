package tune

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"github.com/khamsin-io/khamsin/tune/hostview"
)

const cpuDir = "/sys/devices/system/cpu"

// processors returns how many processors are online.
func (c *checker) processors() (int, error) {
	const path = cpuDir + "/online"
	text, err := c.host.Text(path)
	if err != nil {
		return 0, err
	}
	n, err := countList(text)
	if err != nil {
		return 0, fmt.Errorf("%s %w: %v", path, hostview.ErrGarbage, err)
	}
	return n, nil
}

// countList counts the members of a list such as "0-3,8".
func countList(text string) (int, error) {
	n := 0
	for part := range strings.SplitSeq(text, ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		low, high, isRange := strings.Cut(part, "-")
		if !isRange {
			high = low
		}
		a, err1 := strconv.ParseUint(low, 10, 16)
		b, err2 := strconv.ParseUint(high, 10, 16)
		if err1 != nil || err2 != nil || b < a {
			return 0, fmt.Errorf("%q is no range of processors", part)
		}
		n += int(b-a) + 1
	}
	return n, nil
}

// governor judges how the processors choose their clock rate.
func governor(c *checker) {
	const setting, wanted = "CPU governor", "performance"
	names, err := c.host.Names(cpuDir)
	if err != nil {
		c.unknown(setting, wanted, err)
		return
	}
	var found []string
	var changes []Change
	for _, name := range names {
		path := cpuDir + "/" + name + "/cpufreq/scaling_governor"
		if !c.host.Exists(path) {
			continue
		}
		text, err := c.host.Text(path)
		if err != nil {
			c.unknown(setting, wanted, err)
			return
		}
		if !slices.Contains(found, text) {
			found = append(found, text)
		}
		if text != wanted {
			changes = append(changes, Change{Kind: SysFS, Target: path, Value: wanted})
		}
	}
	if len(found) == 0 {
		c.unknown(setting, wanted, errGovernor)
		return
	}
	bad := Low
	if c.Profile == Latency {
		bad = Medium
	}
	c.add(Finding{
		Setting: setting, Found: strings.Join(found, ", "), Wanted: wanted, Severity: worse(len(changes) > 0, bad),
		Cause: Scheduling, Why: "a processor that slowed down while idle is slow for the packet that wakes it",
		Fix: "cpupower frequency-set -g performance", Changes: changes,
	})
}

// errGovernor says why there is no governor to be seen.
//
// immutable: an error
var errGovernor = errors.New("the kernel does not choose the clock rate here; under a hypervisor, its host does")

// errIdle says why there are no idle states to be seen.
//
// immutable: an error
var errIdle = errors.New("the kernel does not choose idle states here; under a hypervisor, its host does")

// idleStates judges how deep the processors sleep.
func idleStates(c *checker) {
	const setting, dir, limit = "CPU idle states", cpuDir + "/cpu0/cpuidle", 50
	wanted := fmt.Sprintf("none that takes more than %d µs to leave", limit)
	states, err := c.host.Names(dir)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(states) == 0 {
		err = errIdle
	}
	if err != nil {
		c.unknown(setting, wanted, err)
		return
	}
	deepest, name, looked := int64(0), "none", 0
	for _, s := range states {
		if !strings.HasPrefix(s, "state") {
			continue
		}
		looked++
		latency, err := c.host.Int(dir + "/" + s + "/latency")
		if err != nil {
			c.unknown(setting, wanted, err)
			return
		}
		if off, err := c.host.Int(dir + "/" + s + "/disable"); err == nil && off != 0 {
			continue
		}
		if latency > deepest {
			deepest = latency
			if name, err = c.host.Text(dir + "/" + s + "/name"); err != nil {
				name = s
			}
		}
	}
	if looked == 0 {
		c.unknown(setting, wanted, errIdle)
		return
	}
	bad := Note
	if c.Profile == Latency {
		bad = Low
	}
	c.add(Finding{
		Setting: setting, Found: fmt.Sprintf("%s, %d µs", name, deepest), Wanted: wanted,
		Severity: worse(deepest > limit, bad), Cause: Scheduling,
		Why: "time to wake up, in front of the packet that did it",
		Fix: fmt.Sprintf("cpupower idle-set -D %d", limit),
	})
}

// isolated tells whether processors are kept free of other work.
func isolated(c *checker) {
	const setting, path = "isolated processors", cpuDir + "/isolated"
	text, err := c.host.Text(path)
	if err != nil {
		c.unknown(setting, "some, for busy polling", err)
		return
	}
	if _, err := countList(text); err != nil {
		c.unknown(setting, "some, for busy polling", fmt.Errorf("%s %w: %v", path, hostview.ErrGarbage, err))
		return
	}
	if text == "" {
		text = "none"
	}
	c.add(Finding{
		Setting: setting, Found: text, Wanted: "some, for busy polling",
		Severity: worse(text == "none" && c.Profile == Latency, Note),
		Why:      "a receiver that never sleeps wants a processor of its own (isolcpus on the kernel's command line)",
	})
}

// busyPoll judges whether sockets look at the interface before they sleep.
func busyPoll(c *checker) {
	if c.Profile != Latency {
		return
	}
	if c.ownNamespace() {
		c.unknown("net.core.busy_poll", "at least 50", errors.New("belongs to the host, not to this network namespace"))
		return
	}
	for _, name := range []string{"net.core.busy_poll", "net.core.busy_read"} {
		c.atLeast(name, 50, Finding{Severity: Low, Cause: Scheduling,
			Why: "microseconds that a reader looks at the adapter's queue itself instead of waiting for the interrupt"})
	}
}

// clockSource judges what reading the time costs.
func clockSource(c *checker) {
	const setting, path = "clock source", "/sys/devices/system/clocksource/clocksource0/current_clocksource"
	const wanted = "one that is read without a system call"
	found, err := c.host.Text(path)
	if err != nil {
		c.unknown(setting, wanted, err)
		return
	}
	slow := map[string]bool{"hpet": true, "acpi_pm": true, "jiffies": true, "refined-jiffies": true, "xen": true}[found]
	c.add(Finding{
		Setting: setting, Found: found, Wanted: wanted, Severity: worse(slow, Medium), Cause: Scheduling,
		Why: "the library reads the time at every turn; tsc, kvm-clock and arch_sys_counter take nanoseconds",
		Fix: "clocksource=tsc on the kernel's command line, if the processor's counter is stable",
	})
}

// virtualisation tells whether this is a virtual machine.
func virtualisation(c *checker) {
	const setting, path = "virtualisation", "/proc/cpuinfo"
	text, err := c.host.Text(path)
	if err != nil {
		c.unknown(setting, "known", err)
		return
	}
	found, hasFlags := "none", false
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(line, ":")
		if strings.TrimSpace(name) != "flags" {
			continue
		}
		hasFlags = true
		if strings.Contains(" "+strings.TrimSpace(value)+" ", " hypervisor ") {
			found = "virtual machine"
		}
	}
	if !hasFlags {
		c.unknown(setting, "known", fmt.Errorf("%s names no flags on this processor", path))
		return
	}
	if maker, err := c.host.Text("/sys/class/dmi/id/sys_vendor"); err == nil && maker != "" && found != "none" {
		found += ", " + maker
	}
	c.add(Finding{
		Setting: setting, Found: found, Wanted: "any", Severity: worse(found != "none", Note),
		Why: "a virtual processor can be taken away at any moment; latencies have a long tail then",
	})
}

// stolen judges how much of the processors' time the hypervisor gave to others.
func stolen(c *checker) {
	const setting, path, limit = "steal time", "/proc/stat", 1.0
	wanted := fmt.Sprintf("at most %g %%", limit)
	text, err := c.host.Text(path)
	if err != nil {
		c.unknown(setting, wanted, err)
		return
	}
	const stealField, fieldsUsed = 8, 9 // the first is the word "cpu"; guests are counted in user time already
	line, _, _ := strings.Cut(text, "\n")
	fields := strings.Fields(line)
	if len(fields) < fieldsUsed || fields[0] != "cpu" {
		c.unknown(setting, wanted, fmt.Errorf("%s %w", path, hostview.ErrGarbage))
		return
	}
	var total, steal uint64
	for i, field := range fields[1:fieldsUsed] {
		n, err := strconv.ParseUint(field, 10, 63)
		if err != nil {
			c.unknown(setting, wanted, fmt.Errorf("%s %w", path, hostview.ErrGarbage))
			return
		}
		total += n
		if i+1 == stealField {
			steal = n
		}
	}
	share := 0.0
	if total > 0 {
		share = 100 * float64(steal) / float64(total)
	}
	c.add(Finding{
		Setting: setting, Found: fmt.Sprintf("%.2f %% since the host started", share), Wanted: wanted,
		Severity: worse(share > limit, Medium), Cause: Scheduling,
		Why: "time in which the hypervisor ran something else; heartbeats are late then",
		Fix: "a machine with processors of its own",
	})
}
