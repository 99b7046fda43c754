package main

import (
	"context"
	"os"
	"time"

	"github.com/khamsin-io/khamsin/cmd/khamsin/internal/top"
	"github.com/khamsin-io/khamsin/vsync"
)

type topCommand struct {
	Dir  string        `placeholder:"DIR" help:"Directory of the status sockets; default: where KHAMSIN_STATUS=1 puts them."`
	Once bool          `help:"Print one table and end."`
	JSON bool          `name:"json" help:"Print one JSON object and end."`
	Over time.Duration `default:"1s" help:"With --once or --json: between the two looks from which rates follow."`
}

// Run shows the processes of this host.
func (c *topCommand) Run(ctx context.Context) error {
	dir := c.Dir
	if dir == "" {
		dir = vsync.StatusDir()
	}
	if !c.Once && !c.JSON {
		return top.Live(ctx, dir)
	}
	before, err := top.Look(dir, nil)
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(c.Over):
	}
	s, err := top.Look(dir, before)
	if err != nil {
		return err
	}
	if c.JSON {
		return printJSON(os.Stdout, s)
	}
	return top.Print(os.Stdout, dir, s)
}
