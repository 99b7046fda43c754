package main

import (
	"os"

	"github.com/khamsin-io/khamsin/cmd/khamsin/internal/tuning"
)

// tuneCommand sets up hosts.
type tuneCommand struct {
	Check  tuneCheckCommand  `cmd:"" help:"Compare this host's settings with what Khamsin needs. Exit status: 0 nothing is wrong, 1 something is, 2 could not check."`
	Apply  tuneApplyCommand  `cmd:"" help:"Change the settings that a check finds wrong, or the named ones of them; --revert changes them back."`
	Export tuneExportCommand `cmd:"" help:"Write what apply would change as a shell script, Ansible tasks or a Kubernetes DaemonSet."`
}

type tuneCheckCommand struct {
	tuning.Goal
	JSON bool `name:"json" help:"Print one JSON object."`
}

// Run checks the host.
func (c *tuneCheckCommand) Run() error { return tuning.Check(os.Stdout, c.Goal, c.JSON) }

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
	tuning.Goal
	Settings []string `arg:"" optional:"" help:"Settings to change; default: all that are wrong. Those of an interface need --iface."`
	Format   string   `default:"shell" enum:"shell,ansible,kubernetes" help:"shell, ansible or kubernetes."`
}

// Run writes the plan.
func (c *tuneExportCommand) Run() error {
	return tuning.Export(os.Stdout, c.Goal, c.Settings, c.Format)
}
