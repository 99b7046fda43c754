package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/khamsin-io/khamsin/perf"
)

type perfRunCommand struct {
	perfFlags
	Rank      int      `default:"-1" help:"Of this member; default: as mpirun or srun say."`
	Of        int      `help:"Members in all; default: as mpirun or srun say."`
	Interface string   `required:"" help:"Network interface to use."`
	System    string   `default:"khamsin-perf" help:"Name of the run, the same at all members."`
	GroupPort uint16   `default:"21900" help:"UDP port of multicasts."`
	PeerPort  uint16   `default:"21910" help:"First port of members."`
	Hosts     []string `help:"Host of rank 0, for transports without multicast."`
}

// Run is one member of a run.
func (c *perfRunCommand) Run(ctx context.Context) error {
	rank, size, ok := perf.PlaceFromEnv()
	if c.Rank >= 0 && c.Of > 0 {
		rank, size, ok = c.Rank, c.Of, true
	}
	if !ok {
		return errors.New("neither --rank and --of nor the environment say which member this is")
	}
	r, err := perf.Run(ctx, c.options(), perf.Place{
		Rank: rank, Size: size, System: c.System, Interface: c.Interface, GroupPort: c.GroupPort, PeerPort: c.PeerPort,
		Hosts: c.Hosts,
	})
	if err != nil || r == nil {
		return err
	}
	return printResult(os.Stdout, r, c.JSON)
}

type perfReportCommand struct {
	Files  []string `arg:"" type:"existingfile" help:"Results, as perf local --json and perf run --json print them."`
	Base   []string `type:"existingfile" help:"Results to compare with."`
	Output string   `default:"perf.html" help:"The page."`
}

// Run makes the page.
func (c *perfReportCommand) Run() error {
	results, err := readResults(c.Files)
	if err != nil {
		return err
	}
	base, err := readResults(c.Base)
	if err != nil {
		return err
	}
	f, err := os.Create(c.Output)
	if err != nil {
		return err
	}
	if err := errors.Join(perf.WriteReport(f, results, base), f.Close()); err != nil {
		return err
	}
	_, err = fmt.Printf("%s: %d results, %d to compare with\n", c.Output, len(results), len(base))
	return err
}

func readResults(paths []string) ([]*perf.Result, error) {
	var list []*perf.Result
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		r, err := perf.ParseResult(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		list = append(list, r)
	}
	return list, nil
}
