// Command bulk replicates a big object the way that keeps everybody fast: it starts the transfer, and sends the message
// that names the object when all copies are complete. Nobody who gets the message waits for bytes.
//
// Run it with "go run ./examples/bulk". Three members talk on the loopback.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/signal"
	"time"

	"github.com/khamsin-io/khamsin/oob"
	"github.com/khamsin-io/khamsin/vsync"
)

// newModel is the code of the message that names an object.
const newModel vsync.Code = 1

// size is the number of bytes of the object.
const size = 32 << 20

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// member is one process of the group; here all three are in one.
type member struct {
	name  string
	sys   *vsync.System
	group *vsync.Group
	store *oob.Store
	got   chan float64
}

func join(ctx context.Context, name string, opts []vsync.Option) (*member, error) {
	sys, err := vsync.Start(ctx, opts...)
	if err != nil {
		return nil, err
	}
	m := &member{name: name, sys: sys, group: sys.NewGroup("models"), got: make(chan float64, 1)}
	if m.store, err = oob.Attach(m.group); err != nil {
		return nil, errors.Join(err, sys.Close())
	}
	err = m.group.Handle(newModel, func(ctx context.Context, object string) {
		o, err := m.store.Fetch(ctx, object) // it is here already: this does not wait
		if err != nil {
			m.got <- math.NaN()
			return
		}
		defer func() { _ = o.Close() }()
		numbers, err := oob.View[float64](o.Bytes())
		if err != nil {
			m.got <- math.NaN()
			return
		}
		sum := 0.0
		for _, v := range numbers {
			sum += v
		}
		m.got <- sum
	})
	if err == nil {
		err = m.group.Join(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, m.close())
	}
	return m, nil
}

func (m *member) close() error { return errors.Join(m.sys.Close(), m.store.Close()) }

func run(ctx context.Context, out io.Writer, opts ...vsync.Option) error {
	var members []*member
	for _, name := range []string{"ann", "ben", "cat"} {
		m, err := join(ctx, name, opts)
		if err != nil {
			return err
		}
		defer func() { _ = m.close() }()
		members = append(members, m)
	}
	ann := members[0]
	if _, err := ann.group.WaitForSize(ctx, len(members)); err != nil {
		return err
	}
	o, err := ann.store.Create("model-1", size)
	if err != nil {
		return err
	}
	numbers, err := oob.View[float64](o.Bytes())
	if err != nil {
		return err
	}
	for i := range numbers {
		numbers[i] = 0.5
	}
	if err := errors.Join(ann.store.Register(ctx, o), o.Close()); err != nil {
		return err
	}
	began := time.Now()
	if err := ann.store.Replicate("model-1", ann.store.Everybody()).Wait(ctx); err != nil {
		return err
	}
	fmt.Fprintf(out, "%d MiB are at all %d members after %v\n", size>>20, len(members),
		time.Since(began).Round(time.Millisecond))
	if err := ann.group.OrderedSend(ctx, newModel, "model-1"); err != nil {
		return err
	}
	for _, m := range members {
		select {
		case sum := <-m.got:
			fmt.Fprintf(out, "%s adds up %d numbers: %.1f\n", m.name, len(numbers), sum)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	for _, i := range members[2].store.List() {
		fmt.Fprintf(out, "%s: %d bytes, %d holders\n", i.Name, i.Size, len(i.Holders))
	}
	return nil
}
