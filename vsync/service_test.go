package vsync

import (
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"sync"
	"testing"

	"github.com/khamsin-io/khamsin/transports/mem"
)

// ledger is a service that keeps the numbers that were sent to it, as its state.
type ledger struct {
	mu      sync.Mutex
	numbers []uint64
	views   int
	grew    chan struct{}
	ended   chan struct{}
	inside  bool
	port    *ServicePort
}

func newLedger(t *testing.T, g *Group) *ledger {
	l := &ledger{grew: make(chan struct{}, 1), ended: make(chan struct{})}
	port, err := g.AddService(Service{
		Code: -20, Name: "ledger",
		OnMessage: func(m *Message) {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.inside = l.port.InHandler(m.Context())
			l.numbers = append(l.numbers, binary.LittleEndian.Uint64(m.Payload))
			select {
			case l.grew <- struct{}{}:
			default:
			}
		},
		OnView: func(*View) { l.mu.Lock(); l.views++; l.mu.Unlock() },
		MakeState: func(put PutState) error {
			for _, n := range l.numbers {
				if err := put(binary.LittleEndian.AppendUint64(nil, n)); err != nil {
					return err
				}
			}
			return nil
		},
		LoadState: func(piece []byte) error {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.numbers = append(l.numbers, binary.LittleEndian.Uint64(piece))
			return nil
		},
		OnEnd: func(error) { close(l.ended) },
	})
	if err != nil {
		t.Fatal(err)
	}
	l.port = port
	return l
}

func (l *ledger) await(t *testing.T, n int) []uint64 {
	t.Helper()
	for {
		l.mu.Lock()
		got := slices.Clone(l.numbers)
		l.mu.Unlock()
		if len(got) >= n {
			return got
		}
		await(t, l.grew, "the service's messages")
	}
}

// A service has messages, views and a part of the state, beside those of the application, with and without a key.
func TestServiceBesideTheApplication(t *testing.T) {
	for _, secured := range []bool{false, true} {
		var opts []GroupOption
		if secured {
			opts = append(opts, WithGroupKey(keyNamed(1)))
		}
		hub := mem.NewHub()
		a, b := startOn(t, hub), startOn(t, hub)
		ga, gb := a.NewGroup("g", opts...), b.NewGroup("g", opts...)
		la, lb := newLedger(t, ga), newLedger(t, gb)
		loaded := make(chan string, 1)
		for _, g := range []*Group{ga, gb} {
			g.OnMakeState(func(_ context.Context, _ *View, w *StateWriter) error { return w.Put("application") })
			g.OnLoadState(func(s string) { loaded <- s })
		}
		if err := ga.Join(within(t)); err != nil {
			t.Fatal(err)
		}
		for i := range uint64(3) {
			if err := la.port.Send(within(t), Ordered, binary.LittleEndian.AppendUint64(nil, i)); err != nil {
				t.Fatal(err)
			}
		}
		la.await(t, 3)
		if !la.inside || la.port.InHandler(within(t)) {
			t.Error("InHandler is not true inside and false outside")
		}
		if err := gb.Join(within(t)); err != nil {
			t.Fatal(err)
		}
		if s := <-loaded; s != "application" {
			t.Errorf("the application loaded %q", s)
		}
		if err := lb.port.Send(within(t), Ordered, binary.LittleEndian.AppendUint64(nil, 9)); err != nil {
			t.Fatal(err)
		}
		want := []uint64{0, 1, 2, 9}
		if got := la.await(t, 4); !slices.Equal(got, want) {
			t.Errorf("the first member has %v, want %v", got, want)
		}
		if got := lb.await(t, 4); !slices.Equal(got, want) {
			t.Errorf("the joiner has %v, want %v", got, want)
		}
		if err := gb.Leave(within(t)); err != nil {
			t.Fatal(err)
		}
		await(t, lb.ended, "the end of the service")
	}
}

// A process without the service does not get in; faulty services are refused.
func TestServiceMustBeEverywhere(t *testing.T) {
	hub := mem.NewHub()
	a, b := startOn(t, hub), startOn(t, hub)
	ga, gb := a.NewGroup("g"), b.NewGroup("g")
	newLedger(t, ga)
	nop := func(*Message) {}
	_, err := ga.AddService(Service{Code: -20, Name: "again", OnMessage: nop})
	wantErr(t, "the same code", err, ErrCode)
	_, err = ga.AddService(Service{Code: -2, Name: "view", OnMessage: nop})
	wantErr(t, "a code of the library", err, ErrCode)
	_, err = ga.AddService(Service{Code: -21, Name: "mute"})
	wantErr(t, "no function", err, ErrHandler)
	if err := ga.Join(within(t)); err != nil {
		t.Fatal(err)
	}
	_, err = ga.AddService(Service{Code: -22, Name: "late", OnMessage: nop})
	wantErr(t, "after Join", err, ErrJoined)
	var refused *SignatureError
	if err := gb.Join(within(t)); !errors.As(err, &refused) {
		t.Errorf("joining without the service: %v, want a *SignatureError", err)
	}
}
