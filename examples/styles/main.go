// Command styles collects the replies to one question in each of the ways that there are: all at once in lists, as
// encoded bodies whose columns are then read, by going through repliers and values, and as they arrive.
//
//	go run ./examples/styles
package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/khamsin-io/khamsin/vsync"
)

// codeShare asks each member for its share of a sum: its name and a number.
const codeShare vsync.Code = 0

const members = 3

func main() {
	if err := run(context.Background(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "styles:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer, opts ...vsync.Option) error {
	var g *vsync.Group
	for number := range members {
		sys, err := vsync.Start(ctx, opts...)
		if err != nil {
			return err
		}
		defer sys.Close()
		g = sys.NewGroup("styles")
		err = g.Handle(codeShare, func(factor int) (string, int, error) {
			return fmt.Sprint("member ", number), number * factor, nil
		})
		if err != nil {
			return err
		}
		if err := g.Join(ctx); err != nil {
			return err
		}
	}
	for _, style := range []struct {
		name string
		sum  func(context.Context, *vsync.Group) (int, error)
	}{
		{"lists", lists}, {"encoded", encoded}, {"pairs", pairs}, {"stream", stream}, {"first two", firstTwo},
	} {
		sum, err := style.sum(ctx, g)
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "%s: %d\n", style.name, sum)
	}
	return nil
}

// share is a reply: the two values that the handler returns.
type share = vsync.Two[string, int]

// lists takes the values of all replies, in the order of arrival.
func lists(ctx context.Context, g *vsync.Group) (sum int, err error) {
	replies, err := vsync.OrderedQuery[share](ctx, g, vsync.All, codeShare, 10)
	for _, s := range replies.Values() {
		sum += s.Second
	}
	return sum, err
}

// encoded takes the replies as they came, and reads their columns: names[i] and numbers[i] are of one member.
func encoded(ctx context.Context, g *vsync.Group) (sum int, err error) {
	replies, err := vsync.OrderedQuery[vsync.Encoded](ctx, g, vsync.All, codeShare, 10)
	if err != nil {
		return 0, err
	}
	bodies := make([][]byte, 0, replies.Len())
	for _, b := range replies.Values() {
		bodies = append(bodies, b)
	}
	var names []string
	var numbers []int
	if err := g.System().Types().Columns(bodies, &names, &numbers); err != nil {
		return 0, err
	}
	for _, n := range numbers {
		sum += n
	}
	return sum, nil
}

// pairs goes through who replied and what.
func pairs(ctx context.Context, g *vsync.Group) (sum int, err error) {
	replies, err := vsync.OrderedQuery[share](ctx, g, vsync.All, codeShare, 10)
	for who, s := range replies.All() {
		if !replies.View.Contains(who) {
			return 0, fmt.Errorf("a reply of %v, which is no member", who)
		}
		sum += s.Second
	}
	return sum, err
}

// stream takes each reply when it arrives, before the others are there.
func stream(ctx context.Context, g *vsync.Group) (sum int, err error) {
	for reply, err := range vsync.QueryEach[share](ctx, g.As(vsync.Ordered), vsync.All, codeShare, 10) {
		if err != nil {
			return 0, err
		}
		sum += reply.Value.Second
	}
	return sum, nil
}

// firstTwo is content with two replies, of whoever is first.
func firstTwo(ctx context.Context, g *vsync.Group) (int, error) {
	replies, err := vsync.Query[share](ctx, g, 2, codeShare, 10)
	return min(replies.Len(), 2), err
}
