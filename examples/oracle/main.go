// Command oracle is a process that does nothing but take part in the membership service, so that the others need not.
// It runs until it is interrupted. The others start with vsync.WithEligible(false).
//
//	go run ./examples/oracle
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/khamsin-io/khamsin/vsync"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "oracle:", err)
		os.Exit(1)
	}
}

// run serves until ctx ends. Wait returns nil then, and the reason when the process is not part of the system any more.
func run(ctx context.Context, out io.Writer, opts ...vsync.Option) error {
	sys, err := vsync.Start(ctx, opts...)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "oracle: %v serves system %q\n", sys.Address(), sys.Config().SystemName)
	return sys.Wait()
}
