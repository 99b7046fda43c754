// Command updates shows handlers that are told apart by the types of their arguments: one code, two handlers, twenty
// messages that each reach the right one at every member.
//
//	go run ./examples/updates
package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/khamsin-io/khamsin/vsync"
)

// codeUpdate changes the value of a user, by name or by number.
const codeUpdate vsync.Code = 1

const members = 2

func main() {
	if err := run(context.Background(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "updates:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer, opts ...vsync.Option) error {
	lines := make(chan string, 100)
	var group *vsync.Group
	for number := range members {
		sys, err := vsync.Start(ctx, opts...)
		if err != nil {
			return err
		}
		defer sys.Close()
		if group, err = join(ctx, sys, number, lines); err != nil {
			return err
		}
	}
	for n := range 10 {
		if err := group.Send(ctx, codeUpdate, fmt.Sprint("User number ", n), n*100); err != nil {
			return err
		}
	}
	for n := range 10 {
		if err := group.Send(ctx, codeUpdate, 10+n, n*100); err != nil {
			return err
		}
	}
	for range members * 20 {
		select {
		case line := <-lines:
			fmt.Fprintln(out, line)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// join makes a process a member with two handlers for one code.
func join(ctx context.Context, sys *vsync.System, number int, lines chan<- string) (*vsync.Group, error) {
	g := sys.NewGroup("some name")
	err := g.Handle(codeUpdate, func(name string, val int) {
		lines <- fmt.Sprintf("member %d: update %s, new value %d", number, name, val)
	})
	if err != nil {
		return nil, err
	}
	err = g.Handle(codeUpdate, func(id, val int) {
		lines <- fmt.Sprintf("member %d: id-based update %d, new value %d", number, id, val)
	})
	if err != nil {
		return nil, err
	}
	return g, g.Join(ctx)
}
