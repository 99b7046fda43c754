// Command khamsin is the command line of Khamsin. See khamsin --help.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/khamsin-io/khamsin/cmd/khamsin/internal/tuning"
	"github.com/khamsin-io/khamsin/perf"
)

// cli is the command line.
type cli struct {
	Demo    demoCommand    `cmd:"" help:"Run a group of processes on this host, kill one, let one join, and check that all agree."`
	Perf    perfCommand    `cmd:"" help:"Measure what a group does, and what the machine can."`
	Tune    tuneCommand    `cmd:"" help:"Set up a host: check its settings, change them, export or measure them."`
	Oracle  oracleCommand  `cmd:"" help:"Serve as a member of the membership service, and nothing else, until told to end."`
	Top     topCommand     `cmd:"" help:"Watch the processes of this host: groups, views, rates, losses."`
	Oob     oobCommand     `cmd:"" name:"oob" help:"Replicate big objects: a daemon, and its clients."`
	Version versionCommand `cmd:"" help:"Print the version."`
	Member  memberCommand  `cmd:"" hidden:"" help:"One process of a demo; started by it."`
}

func main() {
	var c cli
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	k := kong.Parse(&c,
		kong.Name("khamsin"),
		kong.Description("Process groups with virtual synchrony, as a high-performance data plane."),
		kong.UsageOnError(),
		kong.Vars{
			"primitives": strings.Join(perf.Primitives(), ","), "transports": strings.Join(perf.Transports(), ","),
		},
		kong.BindTo(ctx, (*context.Context)(nil)),
	)
	if err := k.Run(); err != nil {
		status, loud := tuning.Status(err)
		if loud {
			fmt.Fprintln(os.Stderr, "khamsin:", err)
		}
		stop()
		os.Exit(status)
	}
}

type versionCommand struct{}

// Run prints the version that the build recorded.
func (versionCommand) Run() error {
	version := "unknown"
	if info, ok := debug.ReadBuildInfo(); ok {
		version = info.Main.Version + ", " + info.GoVersion
	}
	_, err := fmt.Println("khamsin", version)
	return err
}
