package tune

import (
	"fmt"
	"strconv"
	"strings"
)

// hasAdapter tells whether the interface has hardware, or what stands for it, to be judged.
func (c *checker) hasAdapter() bool { return c.linkErr == nil && !c.link.Loopback }

// adapter says what kind of interface it is.
func adapter(c *checker) {
	if c.linkErr != nil {
		c.unknown("interface "+c.Interface, "known", c.linkErr)
		return
	}
	why := "rings, offloads, queues and coalescing are looked at"
	if c.link.Loopback {
		why = "a loopback has no rings, offloads, queues or coalescing; name another interface to have them looked at"
	}
	c.add(Finding{
		Setting: "interface " + c.Interface, Found: fmt.Sprintf("%s, MTU %d", c.link.Kind, c.link.MTU),
		Wanted: "any", Severity: OK, Why: why,
	})
}

// rings judges how many packets the interface holds for the kernel.
func rings(c *checker) {
	if !c.hasAdapter() {
		return
	}
	const setting = "rings"
	r, err := c.host.System().Rings(c.Interface)
	if err != nil || r.RxMax == 0 {
		if err == nil {
			err = fmt.Errorf("rings of %q: the driver names no maximum", c.Interface)
		}
		c.unknown(setting, "as long as they can be", err)
		return
	}
	want := r.RxMax
	if c.Profile == Latency {
		const enough = 1024
		want = min(enough, r.RxMax)
	}
	c.add(Finding{
		Setting: setting, Found: fmt.Sprintf("rx %d, tx %d", r.Rx, r.Tx), Wanted: fmt.Sprintf("rx at least %d", want),
		Severity: worse(r.Rx < want, Medium), Cause: Loss,
		Why: "packets that the adapter holds until a processor comes for them; more are lost",
		Changes: []Change{{Kind: Rings, Target: c.Interface,
			Value: fmt.Sprintf("%d %d", max(want, r.Rx), max(r.Tx, min(want, r.TxMax)))}},
	})
}

// offloads judges what the interface does for the processor.
func offloads(c *checker) {
	if !c.hasAdapter() {
		return
	}
	features, err := c.host.System().Features(c.Interface)
	for _, o := range []struct {
		setting string
		names   []string // in the kernel's words; one of them is enough
		short   string
		why     string
	}{
		{"GRO", []string{"rx-gro"}, "gro", "packets of one sender reach the socket as one"},
		{"GSO", []string{"tx-generic-segmentation", "tx-udp-segmentation"}, "gso",
			"super-packets are cut as late as possible"},
		{"checksum offload", []string{"tx-checksum-ip-generic", "tx-checksum-ipv4", "tx-checksum-sctp"}, "tx",
			"the adapter computes checksums; without it super-packets cannot be cut late"},
		{"scatter-gather", []string{"tx-scatter-gather"}, "sg", "super-packets leave without being copied together"},
	} {
		if err != nil {
			c.unknown(o.setting, "on", err)
			continue
		}
		on := false
		for _, name := range o.names {
			on = on || features[name]
		}
		c.add(Finding{
			Setting: o.setting, Found: map[bool]string{true: "on", false: "off"}[on], Wanted: "on",
			Severity: worse(!on, Medium), Cause: Packets, Why: o.why,
			Fix: fmt.Sprintf("ethtool -K %s %s on", c.Interface, o.short),
		})
	}
}

// sysfsLink returns the interface's directory in /sys, when /sys shows this network namespace.
func (c *checker) sysfsLink() (string, error) {
	dir := "/sys/class/net/" + c.Interface
	index, err := c.host.Int(dir + "/ifindex")
	switch {
	case err != nil:
		return "", err
	case int(index) != c.link.Index:
		return "", fmt.Errorf("/sys shows another network namespace: its %s has index %d, not %d", c.Interface, index,
			c.link.Index)
	}
	return dir, nil
}

// queues judges whether received packets are spread over the processors.
func queues(c *checker) {
	if !c.hasAdapter() {
		return
	}
	const setting, wanted = "receive queues", "more than one, or RPS"
	dir, err := c.sysfsLink()
	if err != nil {
		c.unknown(setting, wanted, err)
		return
	}
	cpus, err := c.processors()
	if err != nil {
		c.unknown(setting, wanted, err)
		return
	}
	names, err := c.host.Names(dir + "/queues")
	if err != nil {
		c.unknown(setting, wanted, err)
		return
	}
	count, spread, rps := 0, false, ""
	for _, name := range names {
		if !strings.HasPrefix(name, "rx-") {
			continue
		}
		count++
		path := dir + "/queues/" + name + "/rps_cpus"
		mask, err := c.host.Text(path)
		spread = spread || err == nil && strings.Trim(mask, "0,") != ""
		if count == 1 {
			rps = path
		}
	}
	possible := ""
	if ch, err := c.host.System().Channels(c.Interface); err == nil && ch.Max > ch.Count {
		possible = fmt.Sprintf(" of %d possible", ch.Max)
	}
	f := Finding{
		Setting: setting, Found: strconv.Itoa(count) + possible, Wanted: wanted, Cause: Scheduling,
		Severity: worse(count == 1 && !spread && cpus > 1 && c.Profile != Latency, Low),
		Why:      "one processor alone takes in every packet of the interface",
	}
	if spread {
		f.Found += ", RPS on"
	}
	if rps != "" && cpus < 64 {
		f.Changes = []Change{{Kind: SysFS, Target: rps, Value: strconv.FormatUint(1<<cpus-1, 16)}}
	}
	c.add(f)
}

// interrupts judges whether the interface's interrupts go to different processors.
func interrupts(c *checker) {
	if !c.hasAdapter() {
		return
	}
	const setting, wanted = "interrupt affinity", "spread over the processors"
	dir, err := c.sysfsLink()
	if err != nil {
		c.unknown(setting, wanted, err)
		return
	}
	irqs, err := c.host.Names(dir + "/device/msi_irqs")
	if err != nil {
		c.unknown(setting, wanted, fmt.Errorf("the interface has no interrupts of its own: %w", err))
		return
	}
	seen := map[string]bool{}
	for _, irq := range irqs {
		list, err := c.host.Text("/proc/irq/" + irq + "/effective_affinity_list")
		if err != nil {
			c.unknown(setting, wanted, err)
			return
		}
		seen[list] = true
	}
	cpus, err := c.processors()
	if err != nil {
		c.unknown(setting, wanted, err)
		return
	}
	c.add(Finding{
		Setting: setting, Found: fmt.Sprintf("%d interrupts on %d sets of processors", len(irqs), len(seen)),
		Wanted: wanted, Severity: worse(len(irqs) > 1 && len(seen) == 1 && cpus > 1, Low), Cause: Scheduling,
		Why: "one processor alone answers every interrupt of the interface",
		Fix: "irqbalance, or write processors to /proc/irq/NUMBER/smp_affinity_list",
	})
}

// coalescing judges how long the interface keeps packets back to spare interrupts.
func coalescing(c *checker) {
	if !c.hasAdapter() {
		return
	}
	const setting = "interrupt coalescing"
	const latencyMax, throughputMin = 10, 20
	wanted := fmt.Sprintf("adaptive, or at least %d µs", throughputMin)
	if c.Profile == Latency {
		wanted = fmt.Sprintf("at most %d µs, not adaptive", latencyMax)
	}
	k, err := c.host.System().Coalesce(c.Interface)
	if err != nil {
		c.unknown(setting, wanted, err)
		return
	}
	wrong, fix := !k.AdaptiveRx && k.RxMicros < throughputMin, "adaptive-rx on"
	if c.Profile == Latency {
		wrong, fix = k.AdaptiveRx || k.RxMicros > latencyMax, fmt.Sprintf("adaptive-rx off rx-usecs %d", latencyMax)
	}
	found := fmt.Sprintf("%d µs", k.RxMicros)
	if k.AdaptiveRx {
		found += ", adaptive"
	}
	c.add(Finding{
		Setting: setting, Found: found, Wanted: wanted, Severity: worse(wrong, Low), Cause: Scheduling,
		Why: "how long packets wait for company before the processor hears of them",
		Fix: fmt.Sprintf("ethtool -C %s %s", c.Interface, fix),
	})
}
