// Command threading measures what a message costs under each threading model and waiting strategy of vsync: from the
// send to the sender's own handler, to the handler of another process, and there and back, over UDP multicast on
// loopback. Raw UDP sockets of the same run are the reference. It prints the table of docs/decisions/0001-threading.md:
//
//	go run ./perf/threading
//
// One process sends, another one, which the program starts itself, receives. Both read the same monotonic clock, so the
// way there is measured by itself. Nothing leaves the loopback interface.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"time"

	"github.com/alecthomas/kong"

	"github.com/khamsin-io/khamsin/vsync"
)

type cli struct {
	Runs  int           `default:"3" help:"Runs of everything; the table has the medians."`
	Phase time.Duration `default:"1s" help:"Length of one phase: paced, ping-pong, load."`
	Only  string        `placeholder:"NAME" help:"Only cells whose name contains this, such as combining or block."`
	Child bool          `hidden:""`
}

func main() {
	var c cli
	kong.Parse(&c, kong.Description("Measure the threading models."))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	run := c.measure
	if c.Child {
		run = child
	}
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "threading:", err)
		stop()
		os.Exit(1)
	}
}

// cell is one combination to measure.
type cell struct {
	Threading vsync.Threading
	Waiting   vsync.Waiting
	Inline    bool   // handlers on the receiver's goroutine
	Pinned    bool   // the receiver owns its thread
	Raw       string // "block" or "spin": raw sockets instead
}

// String returns the cell's name.
func (c cell) String() string {
	if c.Raw != "" {
		return "raw UDP, " + c.Raw
	}
	name := fmt.Sprintf("%v, %v", c.Threading, c.Waiting)
	if c.Inline {
		name += ", inline"
	}
	if c.Pinned {
		name += ", pinned"
	}
	return name
}

func cells() []cell {
	list := []cell{{Raw: "block"}, {Raw: "spin"}}
	for _, t := range []vsync.Threading{vsync.EngineLoop, vsync.Combining} {
		for _, w := range []vsync.Waiting{vsync.Block, vsync.Adaptive, vsync.BusyPoll} {
			list = append(list, cell{Threading: t, Waiting: w})
		}
	}
	list = append(list, cell{Threading: vsync.Combining, Waiting: vsync.Block, Pinned: true})
	for _, w := range []vsync.Waiting{vsync.Block, vsync.Adaptive, vsync.BusyPoll} {
		list = append(list, cell{Threading: vsync.Combining, Waiting: w, Inline: true})
	}
	return list
}
