package main

import (
	"context"
	"os"
	"time"

	"github.com/khamsin-io/khamsin/cmd/khamsin/internal/tuning"
)

// tuneCommand sets up hosts.
type tuneCommand struct {
	Check  tuneCheckCommand  `cmd:"" help:"Compare this host's settings with what Khamsin needs. Exit status: 0 nothing is wrong, 1 something is, 2 could not check."`
	Apply  tuneApplyCommand  `cmd:"" help:"Change the settings that a check finds wrong, or the named ones of them; --revert changes them back."`
	Export tuneExportCommand `cmd:"" help:"Write what apply would change as a shell script, Ansible tasks or a Kubernetes DaemonSet."`
	Probe  tuneProbeCommand  `cmd:"" help:"Measure what a path carries, find the best settings, and write a configuration."`
}

type tuneCheckCommand struct {
	tuning.Source
	JSON bool `name:"json" help:"Print one JSON object."`
}

// Run checks the host.
func (c *tuneCheckCommand) Run() error { return tuning.Check(os.Stdout, c.Source, c.JSON) }

type tuneApplyCommand struct {
	tuning.Goal
	Settings []string `arg:"" optional:"" help:"Settings to change; default: all that are wrong. Those of an interface need --iface."`
	DryRun   bool     `help:"Print the commands and change nothing."`
	Persist  bool     `help:"Also write /etc/sysctl.d/90-khamsin.conf and a systemd unit that make the changes at every start."`
	Revert   bool     `help:"Undo everything that the journal holds."`
	Journal  string   `default:"/var/lib/khamsin/tune.journal" help:"File that keeps the values from before."`
}

// Run changes the host.
func (c *tuneApplyCommand) Run() error {
	return tuning.Apply(os.Stdout, c.Goal, tuning.ApplyOptions{
		Settings: c.Settings, DryRun: c.DryRun, Persist: c.Persist, Revert: c.Revert, Journal: c.Journal,
	})
}

type tuneExportCommand struct {
	tuning.Source
	Settings []string `arg:"" optional:"" help:"Settings to change; default: all that are wrong. Those of an interface need --iface."`
	Format   string   `default:"shell" enum:"shell,ansible,kubernetes" help:"shell, ansible or kubernetes."`
}

// Run writes the plan.
func (c *tuneExportCommand) Run() error {
	return tuning.Export(os.Stdout, c.Source, c.Settings, c.Format)
}

type tuneProbeCommand struct {
	Iface   string        `placeholder:"IF" default:"lo" help:"Network interface."`
	Profile string        `default:"throughput" enum:"latency,throughput,bulk" help:"What decides: latency, throughput or bulk."`
	Answer  bool          `help:"Answer the probes of others on this interface until interrupted."`
	Port    uint16        `help:"Port to answer on; default: any free one."`
	To      string        `placeholder:"ADDR:PORT" help:"Where another khamsin tune probe --answer runs; default: in this process."`
	Each    time.Duration `default:"50ms" help:"Time for each half of a measurement; there are about thirty in a round."`
	Rounds  int           `default:"3" help:"How often everything is measured; the median counts."`
	Buffer  int           `placeholder:"BYTES" help:"Largest receive buffer that is tried; default: the library's."`
	Out     string        `placeholder:"FILE" help:"Write the best settings as a configuration, such as khamsin.toml."`
	HTML    string        `name:"html" placeholder:"FILE" help:"Write the curves as one HTML page."`
	JSON    bool          `name:"json" help:"Print all measurements as one JSON object."`
}

// Run measures, or answers who measures.
func (c *tuneProbeCommand) Run(ctx context.Context) error {
	if c.Answer {
		return tuning.Answer(ctx, os.Stdout, c.Iface, c.Port)
	}
	return tuning.Probe(ctx, os.Stdout, os.Stderr, tuning.ProbeOptions{
		Iface: c.Iface, Profile: c.Profile, To: c.To, Each: c.Each, Rounds: c.Rounds, Buffer: c.Buffer, Out: c.Out,
		HTML: c.HTML,
		JSON: c.JSON,
	})
}
