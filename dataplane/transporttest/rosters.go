package transporttest

import (
	"slices"
	"sync"
	"testing"

	"github.com/khamsin-io/khamsin/dataplane"
)

// Rostering is a transport that must be told who listens to a channel, such as the overlay tree.
type Rostering interface {
	dataplane.Transport
	SetRoster(ch dataplane.Channel, group uint32, members []dataplane.Endpoint)
}

// Rostered makes Worlds of transports that open opens: whoever subscribes to a channel is put on everybody's roster, as
// the members of a view are.
func Rostered(open func(tb testing.TB, o Options) Rostering) Factory {
	return func(testing.TB, string) World {
		r := &rosters{channels: map[dataplane.Channel][]dataplane.Endpoint{}}
		return World{
			Open: func(tb testing.TB, o Options) dataplane.Transport {
				tb.Helper()
				x := &rostered{Rostering: open(tb, o), all: r}
				r.enter(x)
				return x
			},
			Unnamed: true,
		}
	}
}

// rosters says who listens to what in a World.
type rosters struct {
	mu       sync.Mutex
	open     []*rostered
	channels map[dataplane.Channel][]dataplane.Endpoint
}

// rostered is a transport that tells the others what it subscribes.
type rostered struct {
	Rostering
	all *rosters
}

func (r *rosters) enter(x *rostered) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.open = append(r.open, x)
	for ch, members := range r.channels {
		x.SetRoster(ch, 1, members)
	}
}

// change puts a transport on a channel's roster, or takes it off.
func (r *rosters) change(x *rostered, ch dataplane.Channel, on bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	self := x.Local()
	members := slices.DeleteFunc(slices.Clone(r.channels[ch]), func(e dataplane.Endpoint) bool { return e == self })
	if on {
		members = append(members, x.Local())
	}
	r.channels[ch] = members
	for _, o := range r.open {
		o.SetRoster(ch, 1, members)
	}
}

// Subscribe subscribes a channel and puts the transport on its roster.
func (x *rostered) Subscribe(ch dataplane.Channel) error {
	err := x.Rostering.Subscribe(ch)
	if err == nil {
		x.all.change(x, ch, true)
	}
	return err
}

// Unsubscribe does the contrary.
func (x *rostered) Unsubscribe(ch dataplane.Channel) error {
	err := x.Rostering.Unsubscribe(ch)
	if err == nil {
		x.all.change(x, ch, false)
	}
	return err
}
