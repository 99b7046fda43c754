package vsync_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/khamsin-io/khamsin/transports/mem"
	"github.com/khamsin-io/khamsin/vsync"
)

// options let the systems of one example meet on a network in memory. Real programs start without any.
func options() []vsync.Option {
	return []vsync.Option{
		vsync.WithTransport(vsync.Mem(mem.NewHub())), vsync.WithDiscovery(50 * time.Millisecond), vsync.WithMute(),
	}
}

// start starts a system, or gives the example up.
func start(opts []vsync.Option) *vsync.System {
	sys, err := vsync.Start(context.Background(), opts...)
	if err != nil {
		log.Fatal(err)
	}
	return sys
}

// check gives the example up.
func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// A price list that two processes keep together.
func Example() {
	const (
		setPrice vsync.Code = iota
		getPrice
	)
	ctx, opts := context.Background(), options()
	join := func(sys *vsync.System) *vsync.Group {
		prices := map[string]float64{} // touched by the group's goroutine only
		g := sys.NewGroup("inventory")
		check(g.Handle(setPrice, func(product string, price float64) { prices[product] = price }))
		check(g.Handle(getPrice, func(product string) (float64, error) {
			if price, ok := prices[product]; ok {
				return price, nil
			}
			return 0, errors.New("no such product")
		}))
		check(g.Join(ctx))
		return g
	}
	first, second := start(opts), start(opts)
	defer first.Close()
	defer second.Close()
	join(first)
	b := join(second)

	// Both members take the price, then the question: the order of one sender is kept. A question that the other member
	// asked meanwhile might come before the price, at both alike.
	check(b.OrderedSend(ctx, setPrice, "bolt", 0.25))
	replies, err := vsync.OrderedQuery[float64](ctx, b, vsync.All, getPrice, "bolt")
	fmt.Println(replies.Values(), err)
	_, err = vsync.OrderedQuery[float64](ctx, b, vsync.All, getPrice, "nut")
	fmt.Println(errors.Is(err, vsync.ErrAborted))
	// Output:
	// [0.25 0.25] <nil>
	// true
}

// Handlers for one code, told apart by the types of their arguments.
func ExampleGroup_Handle() {
	const update vsync.Code = 1
	sys := start(options())
	defer sys.Close()
	ctx := context.Background()
	done := make(chan bool)

	g := sys.NewGroup("some name")
	check(g.Handle(update, func(name string, val int) { fmt.Println("name", name, val) }))
	check(g.Handle(update, func(id, val int) { fmt.Println("id", id, val) }))
	check(g.Handle(update, func(m *vsync.Message, last bool) { done <- last }))
	check(g.Join(ctx))

	check(g.Send(ctx, update, "Smith", 100))
	check(g.Send(ctx, update, 4711, 200))
	check(g.Send(ctx, update, true))
	<-done
	// Output:
	// name Smith 100
	// id 4711 200
}

// Point is a type of the application.
type Point struct{ X, Y float64 }

// A handler and a send without reflection and without an allocation.
func ExampleHandle1() {
	const move vsync.Code = 1
	sys := start(options())
	defer sys.Close()
	ctx := context.Background()
	done := make(chan Point)

	check(vsync.Register[Point](sys, 1))
	g := sys.NewGroup("points")
	check(vsync.Handle1(g, move, func(_ *vsync.Message, p Point) { done <- p }))
	check(g.Join(ctx))
	check(vsync.Send1(ctx, g.As(vsync.Ordered), move, Point{1, 2}))
	fmt.Println(<-done)
	// Output: {1 2}
}

// Replies as they come, and what became of those that did not.
func ExampleQueryEach() {
	const whoAreYou vsync.Code = 1
	ctx, opts := context.Background(), options()
	var g *vsync.Group
	for range 3 {
		sys := start(opts)
		defer sys.Close()
		g = sys.NewGroup("crowd")
		check(g.Handle(whoAreYou, func(m *vsync.Message) {
			if m.View.MyRank() == 1 {
				check(m.Null()) // declines
				return
			}
			check(m.Reply(int(m.View.MyRank())))
		}))
		check(g.Join(ctx))
	}
	sum, replies := 0, 0
	for reply, err := range vsync.QueryEach[int](ctx, g, vsync.All, whoAreYou) {
		check(err)
		sum += reply.Value
		replies++
	}
	fmt.Println(replies, "replies, sum", sum)
	// Output: 2 replies, sum 2
}

// A handler that hands the duty to reply to another goroutine.
func ExampleMessage_Detach() {
	const compute vsync.Code = 1
	sys := start(options())
	defer sys.Close()
	ctx := context.Background()

	g := sys.NewGroup("workers")
	check(g.Handle(compute, func(m *vsync.Message, n int) {
		call, err := m.Detach()
		check(err)
		go func() { // takes long, and holds nothing up
			check(call.Reply(n * n))
		}()
	}))
	check(g.Join(ctx))
	square, err := vsync.Ask[int](ctx, g, sys.Address(), compute, 12)
	fmt.Println(square, err)
	// Output: 144 <nil>
}

// The state that a process gets when it joins.
func ExampleGroup_OnMakeState() {
	ctx, opts := context.Background(), options()
	join := func(sys *vsync.System, whole *int, part *float64) {
		g := sys.NewGroup("state")
		check(g.OnMakeState(func(_ context.Context, v *vsync.View, w *vsync.StateWriter) error {
			return errors.Join(w.Put(*whole), w.Put(*part))
		}))
		check(g.OnLoadState(func(i int) { *whole = i }))
		check(g.OnLoadState(func(f float64) { *part = f }))
		check(g.Join(ctx))
	}
	first, second := start(opts), start(opts)
	defer first.Close()
	defer second.Close()
	whole, part := 12345, 987.654
	join(first, &whole, &part)

	var gotWhole int
	var gotPart float64
	join(second, &gotWhole, &gotPart)
	fmt.Println(gotWhole, gotPart)
	// Output: 12345 987.654
}

// Waiting for a view, and watching a process.
func ExampleGroup_Watch() {
	ctx, opts := context.Background(), options()
	first, second := start(opts), start(opts)
	defer first.Close()
	left := make(chan bool)

	g := first.NewGroup("watched")
	check(g.Join(ctx))
	g.Watch(second.Address(), func(who vsync.Address, c vsync.Change) {
		fmt.Println("the second process", c)
		if c == vsync.Left {
			close(left)
		}
	})
	check(second.NewGroup("watched").Join(ctx))
	v, err := g.WaitForSize(ctx, 2)
	fmt.Println(v.Size(), "members", err)
	check(second.Close())
	<-left
	// Output:
	// the second process joined
	// 2 members <nil>
	// the second process left
}
