package oob

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/khamsin-io/khamsin/oob/internal/catalog"
	"github.com/khamsin-io/khamsin/vsync"
)

// submit queues commands, which are sent in their order.
func (s *Store) submit(commands ...catalog.Command) {
	if len(commands) == 0 {
		return
	}
	s.mu.Lock()
	s.commands = append(s.commands, commands...)
	s.mu.Unlock()
	select {
	case s.queued <- struct{}{}:
	default:
	}
}

// commit sends what is queued, as few messages as possible.
func (s *Store) commit() {
	most := s.group.System().Config().MaxMessage / 2
	select {
	case <-s.group.Ready():
	case <-s.ctx.Done():
		return
	}
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-s.queued:
		}
		s.mu.Lock()
		commands := s.commands
		s.commands = nil
		s.mu.Unlock()
		var b []byte
		for i := range commands {
			one := commands[i].Append(nil)
			if len(b) > 0 && len(b)+len(one) > most {
				s.send(b)
				b = b[:0]
			}
			b = append(b, one...)
		}
		s.send(b)
	}
}

func (s *Store) send(b []byte) {
	if len(b) == 0 {
		return
	}
	if err := s.port.Send(s.ctx, vsync.Ordered, b); err != nil && s.ctx.Err() == nil {
		s.log.Warn("objects: commands could not be sent", "err", err)
		if errors.Is(err, vsync.ErrNotMember) || errors.Is(err, vsync.ErrNotRunning) {
			s.end(err)
		}
	}
}

// onMessage applies commands, at their place in the group's order.
func (s *Store) onMessage(m *vsync.Message) {
	commands, err := catalog.Decode(m.Payload)
	if err != nil {
		s.log.Error("objects: commands dropped", "from", m.From, "err", err)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.catalog.Apply(m.From, commands)
	s.follow()
}

// onView applies a view, and tells the others where this process's packets go.
func (s *Store) onView(v *vsync.View) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return
	}
	s.catalog.View(v.Members)
	s.catalog.Settle()
	s.follow()
	greeted := s.greeted
	s.greeted = true
	s.mu.Unlock()
	if !greeted {
		s.submit(catalog.Command{Kind: catalog.KindHello, Hello: catalog.Member{
			IP: s.path.IP, TCP: uint16(addrPort(s.listener.Addr()).Port()), Unit: s.unit, Cast: s.path.Multicast,
			Sided: s.isSided(),
		}})
	}
}

// stateLen is the length of a piece of state; the first byte tells whether another one follows.
const stateLen = 256 << 10

func (s *Store) makeState(put vsync.PutState) error {
	s.mu.Lock()
	state := s.catalog.AppendState(nil)
	s.mu.Unlock()
	for {
		n := min(len(state), stateLen)
		more := byte(0)
		if n < len(state) {
			more = 1
		}
		if err := put(append([]byte{more}, state[:n]...)); err != nil || more == 0 {
			return err
		}
		state = state[n:]
	}
}

func (s *Store) loadState(piece []byte) error {
	if len(piece) == 0 {
		return catalog.ErrMalformed
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.loading = append(s.loading, piece[1:]...)
	if piece[0] != 0 {
		return nil
	}
	err := s.catalog.Load(s.loading)
	s.loading = nil
	return err
}

// follow does here what follows from the catalogue. Store.mu is held.
func (s *Store) follow() {
	for _, o := range s.catalog.Take() {
		s.outcome(&o)
	}
	s.sync()
	s.wake()
}

// outcome does what one outcome means for this process.
func (s *Store) outcome(o *catalog.Outcome) {
	mine := o.Asker == s.self
	switch o.Kind {
	case catalog.Registered, catalog.Refused:
		if mine {
			s.registered(o)
		}
		if o.Kind == catalog.Registered {
			s.graves.fill(o.Name)
		}
	case catalog.Reached:
		if mine {
			var err error
			if len(o.Failed) > 0 {
				err = &PartialError{Name: o.Name, Failed: o.Failed}
			}
			s.answer(o.Request, err)
		}
	case catalog.Superseded:
		if mine {
			s.answer(o.Request, ErrSuperseded)
		}
	case catalog.Unknown:
		if mine {
			s.answer(o.Request, ErrNotFound)
		}
	case catalog.LastCopy:
		if mine {
			s.answer(o.Request, ErrLastCopy)
		}
	case catalog.Arrived:
		if mine {
			s.took(o)
		}
	case catalog.Changed:
		s.renewed(o)
	case catalog.Dropped:
		if mine {
			s.drop(o.Name)
		}
	case catalog.Removed, catalog.Lost:
		if o.Request != 0 {
			if mine {
				s.answer(o.Request, ErrLost)
			}
			return
		}
		s.drop(o.Name)
		reason := ErrDeleted
		if o.Kind == catalog.Lost {
			reason = ErrLost
		}
		s.graves.dig(o.Name, reason)
	}
}

func (s *Store) answer(id uint64, err error) {
	if r := s.requests[id]; r != nil {
		delete(s.requests, id)
		r.end(err)
	}
}

// registered ends a registration.
func (s *Store) registered(o *catalog.Outcome) {
	d := s.drafts[o.Name]
	if d == nil {
		return
	}
	delete(s.drafts, o.Name)
	c := d.copy
	switch {
	case o.Kind == catalog.Refused:
		d.err = ErrExists
		c.item.List = nil
		s.release(c)
	default:
		s.drop(o.Name) // it was arriving here meanwhile
		c.gen, c.held = o.Gen, true
		s.copies[o.Name] = c
	}
	close(d.done)
}

// took notes that an object has arrived here, by a transfer that still runs.
func (s *Store) took(o *catalog.Outcome) {
	x := s.sessions[sessionKey{transfer: o.Transfer, role: castReceive}]
	if x == nil {
		x = s.sessions[sessionKey{transfer: o.Transfer, role: chainReceive}]
	}
	if x == nil || o.Item >= len(x.copies) {
		s.log.Error("objects: arrived without a transfer: a defect", "name", o.Name, "transfer", o.Transfer)
		return
	}
	// The transfer may have gone on for other objects while this one was given up and asked for again.
	c := x.copies[o.Item]
	if s.copies[o.Name] != c {
		s.drop(o.Name)
		c.refs++
		s.copies[o.Name] = c
	}
	c.held, c.partial = true, nil
	delete(s.arriving, o.Name)
	if len(s.notifiers) > 0 {
		s.arrivals = append(s.arrivals, s.handle(c))
		select {
		case s.arrived <- struct{}{}:
		default:
		}
	}
}

// renewed notes that a holder has other bytes. What was on its way here is dropped; what this process holds stays.
func (s *Store) renewed(o *catalog.Outcome) {
	c := s.copies[o.Name]
	switch {
	case c == nil:
	case c.held:
		c.gen = o.Gen
	default:
		s.drop(o.Name)
	}
}

// drop gives up this process's copy.
func (s *Store) drop(name string) {
	if c := s.copies[name]; c != nil {
		delete(s.copies, name)
		delete(s.arriving, name)
		c.held = false
		s.release(c)
	}
}

// notify calls the notifiers.
func (s *Store) notify() {
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-s.arrived:
		}
		s.mu.Lock()
		list, to := s.arrivals, slices.Clone(s.notifiers)
		s.arrivals = nil
		s.mu.Unlock()
		for _, o := range list {
			for i, f := range to {
				h := o
				if i < len(to)-1 {
					s.mu.Lock()
					h = s.handle(o.copy)
					s.mu.Unlock()
				}
				f(h)
			}
		}
	}
}

// Info says what the group knows of an object.
type Info struct {
	Name    string          `json:"name"`
	Size    int64           `json:"size"`
	Digest  string          `json:"digest"`
	Gen     uint64          `json:"generation"`      // differs between objects of one name, and between changes
	Holders []vsync.Address `json:"holders"`         // that have it whole
	Pending []vsync.Address `json:"pending"`         // that shall get it
	Stale   []vsync.Address `json:"stale,omitempty"` // holders whose bytes are older
	State   State           `json:"state"`
	Local   bool            `json:"local"` // this process holds it
}

// State says what happens to an object.
type State string

// The states.
const (
	Settled State = "settled" // the holders are those of the last request
	Waiting State = "waiting" // for a transfer
	Moving  State = "moving"
)

// List returns the objects of the group, by name, as this process knows them.
func (s *Store) List() []Info {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []Info
	for _, o := range s.catalog.Objects() {
		i := Info{
			Name: o.Name, Size: int64(o.Size), Digest: digestText(o.Digest), Gen: o.Gen,
			Holders: slices.Clone(o.Holders),
			Stale:   slices.Clone(o.Stale), State: Settled, Local: slices.Contains(o.Holders, s.self),
		}
		for _, a := range o.Wanted {
			if !slices.Contains(o.Holders, a) {
				i.Pending = append(i.Pending, a)
			}
		}
		switch {
		case o.Since != 0:
			i.State = Waiting
		case len(i.Pending) > 0:
			i.State = Moving
		}
		list = append(list, i)
	}
	return list
}

// Lookup returns what is known of one object.
func (s *Store) Lookup(name string) (Info, error) {
	for _, i := range s.List() {
		if i.Name == name {
			return i, nil
		}
	}
	return Info{}, named(name, ErrNotFound)
}

// Changed returns a channel that is closed at the next change of anything that List tells.
func (s *Store) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

// Await waits until check is true of the list, and returns that.
func (s *Store) Await(ctx context.Context, check func(list []Info) bool) ([]Info, error) {
	for {
		changed := s.Changed()
		list := s.List()
		if check(list) {
			return list, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return list, context.Cause(ctx)
		case <-s.ctx.Done():
			return list, fmt.Errorf("oob: %w", context.Cause(s.ctx))
		}
	}
}
