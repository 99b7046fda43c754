package tune

import (
	"errors"
	"fmt"

	"github.com/khamsin-io/khamsin/tune/hostview"
)

// Report is the outcome of a check.
type Report struct {
	Profile   Profile   `json:"profile"`
	Transport string    `json:"transport"`
	Interface string    `json:"interface"`
	Findings  []Finding `json:"findings"`
}

// Wrong tells whether something should be mended.
func (r Report) Wrong() bool {
	for _, f := range r.Findings {
		if f.Severity.Wrong() {
			return true
		}
	}
	return false
}

// Changes returns what mends the findings, as far as package apply can, in the report's order.
func (r Report) Changes() []Change {
	var all []Change
	for _, f := range r.Findings {
		if f.Severity.Wrong() {
			all = append(all, f.Changes...)
		}
	}
	return all
}

// ErrNothingRead is returned when the host shows none of the settings that matter most.
var ErrNothingRead = errors.New("tune: no setting can be read: is /proc mounted?")

// Check judges a host. An error means that it could not.
func Check(h *hostview.Host, o Options) (Report, error) {
	o, err := o.complete()
	if err != nil {
		return Report{}, fmt.Errorf("tune: %w", err)
	}
	c := &checker{host: h, Options: o}
	c.link, c.linkErr = h.System().Link(o.Interface)
	if c.linkErr != nil && !errors.Is(c.linkErr, hostview.ErrForeign) {
		return Report{}, fmt.Errorf("tune: %w", c.linkErr)
	}
	c.need = needOf(o, c.link.MTU)
	for _, rule := range rules() {
		rule(c)
	}
	if !c.read {
		return Report{}, ErrNothingRead
	}
	sortFindings(c.findings)
	return Report{Profile: o.Profile, Transport: o.Transport, Interface: o.Interface, Findings: c.findings}, nil
}

// rules lists every rule. Each looks at one setting, or at a few that belong together.
func rules() []func(c *checker) {
	return []func(c *checker){
		socketCaps, grantedBuffers, udpMemory, backlog, softnet, udpErrors, memberships, reversePath, multicastPath,
		packetSize, pathMTU, fragments, tcpSettings,
		adapter, rings, offloads, queues, interrupts, coalescing,
		governor, idleStates, isolated, busyPoll, clockSource, virtualisation, stolen,
		hugePages, transparentHugePages, swapping, lockedMemory, openFiles, memoryLimit, processorLimit,
		zeroCopy, rdmaDevices,
	}
}

// checker is one check under way.
type checker struct {
	Options
	host     *hostview.Host
	need     Need
	link     hostview.Link
	linkErr  error
	findings []Finding
	read     bool // at least one limit of the kernel could be read
}

func (c *checker) add(f Finding) {
	if f.Fix == "" {
		f.Fix = commands(f.Changes)
	}
	if !f.Severity.Wrong() {
		f.Fix, f.Changes = "", nil
	}
	c.findings = append(c.findings, f)
}

// unknown reports a setting that cannot be read.
func (c *checker) unknown(setting, wanted string, err error) {
	c.add(Finding{Setting: setting, Found: "unknown", Wanted: wanted, Severity: Unknown, Why: err.Error()})
}

// worse returns bad when wrong, else OK.
func worse(wrong bool, bad Severity) Severity {
	if wrong {
		return bad
	}
	return OK
}

// atLeast judges a sysctl of one number that must not be smaller than wanted. A fix that f brings stands instead of the
// change of the setting.
func (c *checker) atLeast(name string, wanted int64, f Finding) {
	found, err := c.host.Int(sysctlPath(name))
	if err != nil {
		c.unknown(name, fmt.Sprintf("at least %d", wanted), err)
		return
	}
	c.read = true
	f.Setting, f.Found, f.Wanted = name, fmt.Sprint(found), fmt.Sprintf("at least %d", wanted)
	f.Severity = worse(found < wanted, f.Severity)
	if f.Fix == "" {
		f.Changes = []Change{{Kind: Sysctl, Target: name, Value: fmt.Sprint(wanted)}}
	}
	c.add(f)
}
