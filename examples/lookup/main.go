// Command lookup is the smallest program with a query: every member of a group is asked to look up a name, and each
// replies with its rank. It starts three members in one process; they could as well be three processes.
//
//	go run ./examples/lookup
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/khamsin-io/khamsin/vsync"
)

// codeLookup asks to look up a name.
const codeLookup vsync.Code = 0

const members = 3

func main() {
	if err := run(context.Background(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "lookup:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer, opts ...vsync.Option) error {
	var group *vsync.Group
	for range members {
		sys, err := vsync.Start(ctx, opts...)
		if err != nil {
			return err
		}
		defer sys.Close()
		if group, err = join(ctx, sys, out); err != nil {
			return err
		}
	}

	// Wait at most a second for replies of all members. One that is silent until then is treated as crashed.
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	ranks, err := vsync.Query[int](ctx, group.OnTimeout(vsync.TimeoutFail), vsync.All, codeLookup, "John Smith")
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "Got %d replies and they are", ranks.Len())
	for _, rank := range ranks.Values() {
		fmt.Fprint(out, " ", rank)
	}
	fmt.Fprintln(out)
	return nil
}

// join makes a process a member that answers.
func join(ctx context.Context, sys *vsync.System, out io.Writer) (*vsync.Group, error) {
	g := sys.NewGroup("some name")
	err := g.Handle(codeLookup, func(who string) int {
		fmt.Fprintf(out, "My LOOKUP handler was asked to look up %s\n", who)
		return int(g.View().MyRank())
	})
	if err != nil {
		return nil, err
	}
	return g, g.Join(ctx)
}
