package tune

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path"
	"strconv"
	"strings"

	"github.com/khamsin-io/khamsin/tune/hostview"
)

// hugePages judges the pages for an arena that the adapter reads and writes itself.
func hugePages(c *checker) {
	const setting, pageBytes = "vm.nr_hugepages", 2 << 20
	want := (c.need.Arena + pageBytes - 1) / pageBytes
	wanted := fmt.Sprintf("at least %d free", want)
	free, err := c.meminfo("HugePages_Free")
	if err != nil {
		c.unknown(setting, wanted, err)
		return
	}
	bad := Note
	if c.Transport == "xdp" || c.Transport == "rdma" || c.Profile == Bulk {
		bad = Low
	}
	total, err := c.host.Int(sysctlPath(setting))
	if err != nil {
		c.unknown(setting, wanted, err)
		return
	}
	c.add(Finding{
		Setting: setting, Found: fmt.Sprintf("%d, %d free", total, free), Wanted: wanted,
		Severity: worse(free < int64(want), bad), Cause: Packets,
		Why:     "an arena in huge pages needs fewer look-ups of addresses",
		Changes: []Change{{Kind: Sysctl, Target: setting, Value: fmt.Sprint(total + int64(want) - free)}},
	})
}

// meminfo returns one number of /proc/meminfo, in its own unit.
func (c *checker) meminfo(name string) (int64, error) {
	const file = "/proc/meminfo"
	text, err := c.host.Text(file)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			fields := strings.Fields(value)
			if len(fields) == 0 {
				break
			}
			n, err := strconv.ParseInt(fields[0], 10, 64)
			if err != nil {
				return 0, fmt.Errorf("%s %w: %s", file, hostview.ErrGarbage, name)
			}
			return n, nil
		}
	}
	return 0, fmt.Errorf("%s does not name %s", file, name)
}

// transparentHugePages judges whether the kernel rearranges memory on its own.
func transparentHugePages(c *checker) {
	const setting, wanted = "transparent huge pages", "madvise or never"
	const file = "/sys/kernel/mm/transparent_hugepage/enabled"
	text, err := c.host.Text(file)
	if err != nil {
		c.unknown(setting, wanted, err)
		return
	}
	_, rest, ok1 := strings.Cut(text, "[")
	found, _, ok2 := strings.Cut(rest, "]")
	if !ok1 || !ok2 {
		c.unknown(setting, wanted, fmt.Errorf("%s %w", file, hostview.ErrGarbage))
		return
	}
	bad := Note
	if c.Profile == Latency {
		bad = Low
	}
	c.add(Finding{
		Setting: setting, Found: found, Wanted: wanted, Severity: worse(found == "always", bad), Cause: Scheduling,
		Why:     "with always, any touch of memory may wait until the kernel has made a huge page",
		Changes: []Change{{Kind: SysFS, Target: file, Value: "madvise"}},
	})
}

// swapping judges whether the kernel may take the process's memory away.
func swapping(c *checker) {
	const setting, wanted, limit = "vm.swappiness", "at most 10, or no swap", 10
	total, err := c.meminfo("SwapTotal")
	if err != nil {
		c.unknown(setting, wanted, err)
		return
	}
	found, err := c.host.Int(sysctlPath(setting))
	if err != nil {
		c.unknown(setting, wanted, err)
		return
	}
	text := fmt.Sprintf("%d, no swap", found)
	if total > 0 {
		text = fmt.Sprintf("%d, %d MiB of swap", found, total>>10)
	}
	c.add(Finding{
		Setting: setting, Found: text, Wanted: wanted, Severity: worse(total > 0 && found > limit, Low),
		Cause:   Scheduling,
		Why:     "a member whose pages are on disk answers late and may be declared failed",
		Changes: []Change{{Kind: Sysctl, Target: setting, Value: strconv.Itoa(limit)}},
	})
}

// limit returns the soft limit of this process, "unlimited" as the largest number.
func (c *checker) limit(name string) (int64, error) {
	const file = "/proc/self/limits"
	text, err := c.host.Text(file)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(text) {
		rest, ok := strings.CutPrefix(line, name)
		if !ok {
			continue
		}
		fields := strings.Fields(rest)
		if len(fields) > 0 && fields[0] == "unlimited" {
			return math.MaxInt64, nil
		}
		if len(fields) > 0 {
			if n, err := strconv.ParseInt(fields[0], 10, 64); err == nil {
				return n, nil
			}
		}
		return 0, fmt.Errorf("%s %w: %s", file, hostview.ErrGarbage, name)
	}
	return 0, fmt.Errorf("%s does not name %s", file, name)
}

func limitText(n int64) string {
	if n == math.MaxInt64 {
		return "unlimited"
	}
	return fmt.Sprint(n)
}

// lockedMemory judges how much memory the process may pin for an adapter.
func lockedMemory(c *checker) {
	const setting = "limit of locked memory"
	wanted := fmt.Sprintf("at least %d", c.need.Arena)
	n, err := c.limit("Max locked memory")
	if err != nil {
		c.unknown(setting, wanted, err)
		return
	}
	bad := Note
	switch c.Transport {
	case "rdma":
		bad = High
	case "xdp":
		bad = Medium
	}
	c.add(Finding{
		Setting: setting, Found: limitText(n), Wanted: wanted, Severity: worse(n < int64(c.need.Arena), bad),
		Cause: Packets, Why: "the transports xdp and rdma pin the whole arena",
		Fix: fmt.Sprintf("ulimit -l %d, or LimitMEMLOCK=%d in the service's unit", (c.need.Arena+1023)/1024,
			c.need.Arena),
	})
}

// openFiles judges how many descriptors the process may have.
func openFiles(c *checker) {
	const setting = "limit of open files"
	wanted := fmt.Sprintf("at least %d", c.need.Files)
	n, err := c.limit("Max open files")
	if err != nil {
		c.unknown(setting, wanted, err)
		return
	}
	c.add(Finding{
		Setting: setting, Found: limitText(n), Wanted: wanted, Severity: worse(n < int64(c.need.Files), Medium),
		Cause: Packets, Why: "sockets, and connections to every member with the transport tcp",
		Fix: fmt.Sprintf("ulimit -n %d, or LimitNOFILE=%d in the service's unit", c.need.Files, c.need.Files),
	})
}

const cgroupDir = "/sys/fs/cgroup"

// cgroupFile reads a control file of this process's control group, in version 2 or else version 1.
func (c *checker) cgroupFile(v2, v1controller, v1 string) (string, error) {
	text, err := c.host.Text("/proc/self/cgroup")
	if err != nil {
		return "", err
	}
	var tried error
	for line := range strings.Lines(text) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			return "", fmt.Errorf("/proc/self/cgroup %w", hostview.ErrGarbage)
		}
		var files []string
		switch {
		case parts[0] == "0" && parts[1] == "":
			files = []string{path.Join(cgroupDir, parts[2], v2), path.Join(cgroupDir, "unified", parts[2], v2)}
		case hasWord(parts[1], v1controller):
			dir := path.Join(cgroupDir, v1controller)
			files = []string{path.Join(dir, parts[2], v1), path.Join(dir, v1)}
		}
		for _, file := range files {
			value, err := c.host.Text(file)
			if err == nil {
				return value, nil
			}
			if !errors.Is(err, fs.ErrNotExist) {
				tried = errors.Join(tried, err)
			}
		}
	}
	if tried == nil {
		return "", errNoLimit
	}
	return "", tried
}

// errNoLimit says that no control group limits the process.
var errNoLimit = errors.New("no control group limits it") // immutable: an error

func hasWord(list, word string) bool {
	for w := range strings.SplitSeq(list, ",") {
		if w == word {
			return true
		}
	}
	return false
}

// memoryLimit judges the memory that the process's control group may use.
func memoryLimit(c *checker) {
	const setting, factor = "memory limit of the container", 2
	want := int64(c.need.Arena) * factor
	wanted := fmt.Sprintf("at least %d", want)
	text, err := c.cgroupFile("memory.max", "memory", "memory.limit_in_bytes")
	if errors.Is(err, errNoLimit) {
		text, err = "max", nil
	}
	if err != nil {
		c.unknown(setting, wanted, err)
		return
	}
	n := int64(math.MaxInt64)
	if text != "max" {
		if n, err = strconv.ParseInt(text, 10, 64); err != nil {
			c.unknown(setting, wanted, fmt.Errorf("memory limit %w", hostview.ErrGarbage))
			return
		}
	}
	if n > math.MaxInt64>>1 {
		text = "none"
	}
	c.add(Finding{
		Setting: setting, Found: text, Wanted: wanted, Severity: worse(n < want, High), Cause: Loss,
		Why: fmt.Sprintf("the arena alone may use %d bytes; a container at its limit is killed", c.need.Arena),
		Fix: "raise the container's memory limit, or lower ISIS_MAXMSGLEN",
	})
}

// processorLimit judges the share of the processors that the process's control group may use.
func processorLimit(c *checker) {
	const setting, wanted = "CPU limit of the container", "none, or whole processors"
	quota, period := int64(-1), int64(0)
	text, err := c.cgroupFile("cpu.max", "cpu", "cpu.cfs_quota_us")
	if errors.Is(err, errNoLimit) {
		text, err = "max", nil
	}
	if err == nil {
		quota, period, err = parseQuota(text)
	}
	if err == nil && quota > 0 && period == 0 { // version 1 has a file of its own for the period
		if text, err = c.cgroupFile("cpu.max.none", "cpu", "cpu.cfs_period_us"); err == nil {
			period, err = strconv.ParseInt(text, 10, 64)
		}
	}
	if err != nil || quota > 0 && period <= 0 {
		c.unknown(setting, wanted, errors.Join(err, fmt.Errorf("CPU limit %q cannot be read", text)))
		return
	}
	found := "none"
	if quota > 0 {
		found = fmt.Sprintf("%.2f processors", float64(quota)/float64(period))
	}
	c.add(Finding{
		Setting: setting, Found: found, Wanted: wanted,
		Severity: worse(quota > 0 && (quota < 2*period || quota%period != 0), Medium), Cause: Scheduling,
		Why: "a container that has used its share stands still for the rest of the period, up to 100 ms",
		Fix: "whole processors, at least two, or none: cpu.max, or requests equal to limits with a static CPU manager",
	})
}

// parseQuota reads "max", "max PERIOD", "QUOTA PERIOD" (version 2), or a quota alone, -1 for none (version 1).
func parseQuota(text string) (quota, period int64, err error) {
	fields := strings.Fields(text)
	if len(fields) == 0 || len(fields) > 2 {
		return 0, 0, hostview.ErrGarbage
	}
	if fields[0] == "max" {
		return -1, 0, nil
	}
	if quota, err = strconv.ParseInt(fields[0], 10, 64); err != nil {
		return 0, 0, hostview.ErrGarbage
	}
	if len(fields) == 2 {
		if period, err = strconv.ParseInt(fields[1], 10, 64); err != nil || period <= 0 {
			return 0, 0, hostview.ErrGarbage
		}
	}
	return quota, period, nil
}
