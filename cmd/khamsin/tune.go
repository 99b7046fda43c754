package main

import (
	"context"
	"os"

	"github.com/khamsin-io/khamsin/cmd/khamsin/internal/tuning"
)

// tuneCommand sets up hosts.
type tuneCommand struct {
	Check tuneCheckCommand `cmd:"" help:"Compare this host's settings with what Khamsin needs. Exit status: 0 nothing is wrong, 1 something is, 2 could not check."`
}

type tuneCheckCommand struct {
	tuning.Goal
	JSON bool `name:"json" help:"Print one JSON object."`
}

// Run checks the host.
func (c *tuneCheckCommand) Run(context.Context) error { return tuning.Check(os.Stdout, c.Goal, c.JSON) }
