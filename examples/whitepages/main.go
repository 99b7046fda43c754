// Command whitepages searches a telephone book backwards, from the number to the name, with the work split among the
// members of a group: the one of rank r looks only at the entries whose place, divided by the group's size, leaves r.
// Since a query is delivered in the same view at all members, the parts cover the book exactly once, whoever joins or
// fails meanwhile.
//
//	go run ./examples/whitepages
package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/khamsin-io/khamsin/vsync"
)

// codeWhose asks whose telephone number that is.
const codeWhose vsync.Code = 0

const members = 4

// Entry is one line of the book.
type Entry struct {
	Name   string
	Number int
}

// Hit is what a member found, and how many lines it looked at.
type Hit struct {
	Names  []string
	Looked int
}

func main() {
	if err := run(context.Background(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "whitepages:", err)
		os.Exit(1)
	}
}

// book returns the telephone book, which every member has.
func book() []Entry {
	var list []Entry
	for i := range 1000 {
		list = append(list, Entry{Name: fmt.Sprint("Subscriber ", i), Number: 5_000_000 + i*37%1000})
	}
	return list
}

func run(ctx context.Context, out io.Writer, opts ...vsync.Option) error {
	var group *vsync.Group
	for range members {
		sys, err := vsync.Start(ctx, opts...)
		if err != nil {
			return err
		}
		defer sys.Close()
		if group, err = join(ctx, sys); err != nil {
			return err
		}
	}
	for _, number := range []int{5_000_000, 5_000_037, 5_000_999, 1} {
		if err := search(ctx, group, number, out); err != nil {
			return err
		}
	}
	return nil
}

// join makes a process a member that searches its part.
func join(ctx context.Context, sys *vsync.System) (*vsync.Group, error) {
	if err := vsync.Register[Hit](sys, 1); err != nil {
		return nil, err
	}
	g := sys.NewGroup("white pages")
	pages := book()
	err := vsync.Answer1(g, codeWhose, func(m *vsync.Message, number int) (Hit, error) {
		var hit Hit
		for i := int(m.View.MyRank()); i < len(pages); i += m.View.Size() {
			if hit.Looked++; pages[i].Number == number {
				hit.Names = append(hit.Names, pages[i].Name)
			}
		}
		return hit, nil
	})
	if err != nil {
		return nil, err
	}
	return g, g.Join(ctx)
}

// search asks all members and puts their parts together.
func search(ctx context.Context, g *vsync.Group, number int, out io.Writer) error {
	hits, err := vsync.Query[Hit](ctx, g, vsync.All, codeWhose, number)
	if err != nil {
		return err
	}
	looked := 0
	var names []string
	for _, hit := range hits.Values() {
		looked += hit.Looked
		names = append(names, hit.Names...)
	}
	fmt.Fprintf(out, "%d is %q; %d members looked at %d lines\n", number, names, hits.Len(), looked)
	return nil
}
