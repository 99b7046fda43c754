package udp

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/khamsin-io/khamsin/dataplane"
)

// Subscribe joins the channel's group on the interface.
func (t *Transport) Subscribe(ch dataplane.Channel) error {
	t.control.Lock()
	defer t.control.Unlock()
	if err := t.checkChannel(ch); err != nil {
		return err
	}
	if t.joined[ch] != nil {
		return nil
	}
	for _, s := range t.groups {
		if s.full {
			continue
		}
		err := t.join(s, ch)
		if !errors.Is(err, unix.ENOBUFS) {
			return err
		}
		s.full = true
	}
	return fmt.Errorf("udp: channel %d: %d channels on %d sockets are all that the system allows: %w",
		ch, len(t.joined), len(t.groups), unix.ENOBUFS)
}

// Unsubscribe leaves the channel's group.
func (t *Transport) Unsubscribe(ch dataplane.Channel) error {
	t.control.Lock()
	defer t.control.Unlock()
	if err := t.checkChannel(ch); err != nil {
		return err
	}
	s := t.joined[ch]
	if s == nil {
		return nil
	}
	defer t.listen() // after the last copy came
	delete(t.joined, ch)
	s.full = false
	f := t.cfg.family()
	if err := t.joinAll(s, ch, false); err != nil {
		return fmt.Errorf("udp: leave %v: %w", f.group(ch), err)
	}
	return nil
}

// checkChannel tells whether a channel can be joined or left. The caller holds control.
func (t *Transport) checkChannel(ch dataplane.Channel) error {
	switch {
	case t.closed.Load():
		return dataplane.ErrClosed
	case t.cfg.GroupPort == 0:
		return dataplane.ErrNoMulticast
	case ch < dataplane.ChannelMin || ch > dataplane.ChannelMax:
		return dataplane.ErrBadChannel
	}
	return nil
}

// membershipsFile says how many groups one socket can join.
const membershipsFile = "/proc/sys/net/ipv4/igmp_max_memberships"

// memberships returns how many groups one socket can join.
func memberships() int {
	const usual = 20
	text, err := os.ReadFile(membershipsFile)
	if err != nil {
		return usual
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || n < 1 {
		return usual
	}
	return n
}

// openGroups opens the multicast sockets: all now, so that they belong to the network namespace of Open's caller and
// not to that of whoever subscribes.
func (t *Transport) openGroups() error {
	if t.cfg.GroupPort == 0 {
		return nil
	}
	if err := t.cfg.family().probeRoute(t.cfg); err != nil {
		return err
	}
	each := max(1, memberships()/max(1, len(t.cfg.indexes)))
	for room := 0; room < t.cfg.Channels; room += each {
		s, err := openGroup(t.cfg)
		if err != nil {
			return err
		}
		t.groups = append(t.groups, s)
		if t.cfg.Filter == nil {
			t.enableGRO(s)
		} else if err := t.cfg.Filter.Attach(s.fd); err != nil {
			return fmt.Errorf("udp: group filter: %w", err)
		}
	}
	return nil
}

// join joins a channel at a socket, which Receive reads from the first one on. The caller holds control.
func (t *Transport) join(s *socket, ch dataplane.Channel) error {
	t.joined[ch] = s
	t.listen() // before the first copy comes
	f := t.cfg.family()
	if err := t.joinAll(s, ch, true); err != nil {
		delete(t.joined, ch)
		t.listen()
		return fmt.Errorf("udp: join %v on %q: %w", f.group(ch), t.cfg.Interface, err)
	}
	if read := *t.sockets.Load(); !slices.Contains(read, s) {
		read = append(slices.Clip(slices.Clone(read)), s)
		t.sockets.Store(&read)
		if err := t.waiter.ring(); err != nil { // a Receive that sleeps must look at one socket more
			return fmt.Errorf("udp: eventfd: %w", err)
		}
	}
	return nil
}

// joinAll makes a socket a member of a channel on all interfaces, or ends that.
func (t *Transport) joinAll(s *socket, ch dataplane.Channel, member bool) error {
	f := t.cfg.family()
	if len(t.cfg.indexes) == 0 {
		return f.join(s.fd, ch, member)
	}
	var errs []error
	for i, index := range t.cfg.indexes {
		f.ifIndex = int(index)
		err := f.join(s.fd, ch, member)
		if err != nil && member {
			for _, index := range t.cfg.indexes[:i] {
				f.ifIndex = int(index)
				_ = f.join(s.fd, ch, false) // what fails is told already
			}
			return err
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// Admit lets multicasts of a group through the filter, if there is one. Until then those that belong to a group are
// dropped by it.
func (t *Transport) Admit(_ dataplane.Channel, group uint32) error {
	return t.changeFilter(func(f Filter) error { return f.Admit(group) })
}

// Revoke takes Admit back.
func (t *Transport) Revoke(_ dataplane.Channel, group uint32) error {
	return t.changeFilter(func(f Filter) error { return f.Revoke(group) })
}

func (t *Transport) changeFilter(change func(Filter) error) error {
	t.control.Lock()
	defer t.control.Unlock()
	switch {
	case t.closed.Load():
		return dataplane.ErrClosed
	case t.cfg.Filter == nil:
		return nil
	}
	if err := change(t.cfg.Filter); err != nil {
		return fmt.Errorf("udp: %w", err)
	}
	return nil
}

// countFiltered asks how many packets the filter has dropped.
func (t *Transport) countFiltered() uint64 {
	if t.cfg.Filter != nil {
		if _, dropped, err := t.cfg.Filter.Counts(); err == nil { // else it is closed: the last number stands
			t.filtered.Store(dropped)
		}
	}
	return t.filtered.Load()
}
