package oob

import (
	"context"
	"hash/fnv"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/oob/internal/cast"
	"github.com/khamsin-io/khamsin/oob/internal/catalog"
	"github.com/khamsin-io/khamsin/oob/internal/chain"
	"github.com/khamsin-io/khamsin/oob/internal/transfer"
	"github.com/khamsin-io/khamsin/vsync"
)

// role is what a process does in a transfer.
type role uint8

const (
	castSend role = iota
	castReceive
	chainReceive
	chainSend // to one process
)

type sessionKey struct {
	transfer uint64
	role     role
	peer     vsync.Address // of chainSend
}

// session is this process's part in a transfer.
type session struct {
	transfer catalog.Transfer // as it was when the session began
	ctx      context.Context  // ends with the session
	cancel   context.CancelFunc
	addrs    map[vsync.Address]netip.Addr
	targets  []vsync.Address               // of castSend, that are not done; guarded by Store.mu
	sending  atomic.Pointer[cast.Sending]  // of castSend
	moved    atomic.Pointer[func() uint32] // how many segments this process has moved
	copies   []*copied                     // in use; guarded by Store.mu
	shares   bool                          // of chainSend: what it sends is what another session brings

	layout   *transfer.Layout // these three are written before ready is closed
	items    []transfer.Item
	incoming *chain.Incoming // of chainReceive
	ready    chan struct{}
	ended    chan struct{} // closed when it writes nothing any more
	released chan struct{} // closed when it uses nothing any more
}

// retryAfter is how long a part that failed, for want of a socket for instance, waits before it begins anew.
const retryAfter = time.Second

// sync starts and stops sessions so that they are those that the catalogue asks for. Store.mu is held.
func (s *Store) sync() {
	wanted := make(map[sessionKey]*catalog.Transfer)
	for _, t := range s.catalog.Transfers() {
		target := slices.Contains(t.Targets, s.self)
		switch {
		case t.Cast && t.Source == s.self:
			wanted[sessionKey{transfer: t.ID, role: castSend}] = t
		case t.Cast && target:
			wanted[sessionKey{transfer: t.ID, role: castReceive}] = t
		case !t.Cast:
			if target {
				wanted[sessionKey{transfer: t.ID, role: chainReceive}] = t
			}
			for _, a := range t.Targets {
				if s.catalog.Upstream(t, a) == s.self {
					wanted[sessionKey{transfer: t.ID, role: chainSend, peer: a}] = t
				}
			}
		}
	}
	for key, x := range s.sessions {
		t := wanted[key]
		if t == nil {
			s.stopSession(key, x)
			continue
		}
		delete(wanted, key)
		if key.role == castSend {
			s.thin(x, t)
		}
	}
	// What receives begins first: what passes on needs it.
	for key, t := range wanted {
		if key.role != chainSend {
			s.startSession(key, t)
		}
	}
	for key, t := range wanted {
		if key.role == chainSend {
			s.startSession(key, t)
		}
	}
	for name, c := range s.arriving {
		if o := s.catalog.Object(name); o == nil || o.Gen != c.gen || !slices.Contains(o.Wanted, s.self) {
			s.drop(name)
		}
	}
}

// thin takes the targets out of a sending that have everything, or are not targets any more.
func (s *Store) thin(x *session, t *catalog.Transfer) {
	for _, a := range x.targets {
		if !slices.Contains(t.Targets, a) {
			if c := x.sending.Load(); c != nil {
				c.Gone(a.Incarnation)
			}
		}
	}
	x.targets = slices.Clone(t.Targets)
}

func (s *Store) stopSession(key sessionKey, x *session) {
	delete(s.sessions, key)
	s.leaving[x] = true
	x.cancel()
}

// startSession starts this process's part of a transfer. Store.mu is held.
func (s *Store) startSession(key sessionKey, t *catalog.Transfer) {
	x := &session{
		transfer: *t, targets: slices.Clone(t.Targets), ready: make(chan struct{}),
		ended: make(chan struct{}), released: make(chan struct{}), addrs: make(map[vsync.Address]netip.Addr),
	}
	x.transfer.Targets, x.transfer.Items = slices.Clone(t.Targets), slices.Clone(t.Items)
	for _, a := range t.Path {
		if m := s.catalog.Member(a); m != nil {
			x.addrs[a] = m.IP
		}
	}
	var work func() error
	switch key.role {
	case castSend:
		s.use(x)
		work = func() error { return s.sendCast(x) }
	case castReceive, chainReceive:
		digests := make([]catalog.Digest, len(t.Items))
		for i, it := range t.Items {
			if o := s.catalog.Object(it.Name); o != nil && o.Gen == it.Gen {
				digests[i] = o.Digest
			}
		}
		receive := s.receiveCast
		if key.role == chainReceive {
			receive = s.receiveChain
		}
		work = func() error {
			r, err := s.prepare(x, digests)
			if err != nil {
				return err
			}
			return receive(x, r)
		}
	case chainSend:
		peer := s.catalog.Member(key.peer)
		if peer == nil {
			return
		}
		to := netip.AddrPortFrom(peer.IP, peer.TCP)
		upstream := s.sessions[sessionKey{transfer: t.ID, role: chainReceive}]
		if upstream == nil {
			s.use(x)
		}
		sided := peer.Sided
		work = func() error { return s.sendChain(x, upstream, to, sided) }
	}
	x.ctx, x.cancel = context.WithCancel(s.ctx)
	s.sessions[key] = x
	s.all.Add(1)
	go func() {
		defer s.all.Done()
		s.run(key, x, work)
	}()
}

// use takes the objects of a transfer that this process holds. What it does not hold any more is empty, which nobody
// wants. Store.mu is held.
func (s *Store) use(x *session) {
	for _, it := range x.transfer.Items {
		c := s.copies[it.Name]
		if c == nil || c.gen != it.Gen || !c.held {
			x.items = append(x.items, transfer.NewItem(make([]byte, it.Size), catalog.Digest{}))
			continue
		}
		c.refs++
		x.copies = append(x.copies, c)
		x.items = append(x.items, c.item)
	}
}

// run does the work, again if it fails while the transfer goes on, and then gives back what was used.
func (s *Store) run(key sessionKey, x *session, work func() error) {
	for x.ctx.Err() == nil {
		err := s.settings.do(work)
		if x.ctx.Err() != nil || err == nil || cast.Stopped(err) {
			break
		}
		s.log.Warn("objects: a transfer failed here", "transfer", x.transfer.ID, "err", err)
		if key.role == castReceive || key.role == chainReceive {
			s.submit(catalog.Command{Kind: catalog.KindCannot, Transfer: x.transfer.ID})
			break
		}
		select {
		case <-x.ctx.Done():
		case <-time.After(retryAfter):
		}
	}
	close(x.ended)
	<-x.ctx.Done()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range x.copies {
		s.release(c)
	}
	x.copies = nil
	delete(s.leaving, x)
	close(x.released)
}

func (x *session) sizes() []uint64 {
	var list []uint64
	for _, it := range x.transfer.Items {
		list = append(list, it.Size)
	}
	return list
}

// prepare makes room for what will arrive, and returns what notes it.
func (s *Store) prepare(x *session, digests []catalog.Digest) (*transfer.Receiver, error) {
	unit := x.transfer.Unit
	if !x.transfer.Cast {
		unit = chain.Unit
	}
	var err error
	if x.layout, err = transfer.NewLayout(unit, x.sizes()); err != nil {
		return nil, err
	}
	copies := make([]*copied, len(x.transfer.Items))
	for i, it := range x.transfer.Items {
		if copies[i], err = s.room(x, it, digests[i]); err != nil {
			return nil, err
		}
		x.items = append(x.items, copies[i].item)
	}
	r := transfer.NewReceiver(x.layout, x.items)
	for _, c := range copies {
		if err := s.takeOver(x, c); err != nil {
			return nil, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, c := range copies {
		if c.held {
			continue
		}
		if c.partial != nil {
			r.Adopt(i, c.partial, c.partialItem)
		}
		c.partial, c.partialItem = r, i
	}
	return r, nil
}

// takeOver makes a session the only one that writes to a copy: it waits for the one that was broken off.
func (s *Store) takeOver(x *session, c *copied) error {
	s.mu.Lock()
	before := c.writer
	c.writer = x
	s.mu.Unlock()
	if before == nil || before == x {
		return nil
	}
	select {
	case <-before.ended:
		return nil
	case <-x.ctx.Done():
		return context.Cause(x.ctx)
	}
}

// room returns the copy of an item that arrives: the one that another transfer had begun, or a new one.
func (s *Store) room(x *session, it catalog.Item, d catalog.Digest) (*copied, error) {
	if c := s.begun(x, it); c != nil {
		return c, nil
	}
	if it.Size >= heavyBytes {
		s.awaitMemory(x)
	}
	// Setting memory aside takes long for big objects, and handlers wait for what is locked.
	b, err := s.pool.Alloc(int64(it.Size))
	if err != nil {
		return nil, named(it.Name, err)
	}
	c := &copied{name: it.Name, size: it.Size, gen: it.Gen, block: b, item: transfer.NewItem(b.Data, d), refs: 1}
	s.mu.Lock()
	defer s.mu.Unlock()
	x.copies = append(x.copies, c)
	if x.ctx.Err() != nil {
		return c, nil // the transfer has ended meanwhile
	}
	if o := s.catalog.Object(it.Name); o != nil && o.Gen == it.Gen && slices.Contains(o.Wanted, s.self) {
		s.drop(it.Name)
		c.refs++
		s.copies[it.Name], s.arriving[it.Name] = c, c
	}
	return c, nil
}

// begun returns the copy of an item that there is, nil without one.
func (s *Store) begun(x *session, it catalog.Item) *copied {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.copies[it.Name]
	if c == nil || c.gen != it.Gen {
		return nil
	}
	c.refs++
	x.copies = append(x.copies, c)
	return c
}

// write puts bytes in their place, where they are not received in place.
func (s *Store) write(x *session) func(item int, b []byte, off int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	copies := slices.Clone(x.copies)
	return func(item int, b []byte, off int64) error { return copies[item].block.WriteAt(b, off) }
}

// have tells the group that everything has arrived here.
func (s *Store) have(x *session) {
	s.submit(catalog.Command{Kind: catalog.KindHave, Transfer: x.transfer.ID})
}

// castPath returns where the packets of a transfer go.
func (s *Store) castPath(x *session) cast.Path {
	h := fnv.New32a()
	_, _ = h.Write([]byte(s.group.System().Config().SystemName + "/" + s.group.Name()))
	slot := uint32(x.transfer.Slot)
	var ch dataplane.Channel
	if n := uint32(s.path.BulkCount); slot < n { // within the limit of the system's addresses
		ch = dataplane.Channel(s.path.Bulk + (h.Sum32()+slot)%n)
	} else { // more at once were asked for: those use the upper end of the range, of which groups use the lower one
		span := max(1, (s.path.High-s.path.Low)/2)
		ch = dataplane.Channel(s.path.High - (h.Sum32()%64*maxTransfersMax+slot)%span)
	}
	p := cast.Path{
		IP: s.path.IP, Interface: s.index, Group: ch.IPv4(), Port: s.path.GroupPort, TTL: s.path.TTL,
	}
	if s.path.IP.Is6() {
		p.Group = ch.IPv6()
	}
	for a, ip := range x.addrs { // in any order
		p.Loop = p.Loop || ip == s.path.IP && a != s.self
	}
	return p
}

func (s *Store) sendCast(x *session) error {
	layout, err := transfer.NewLayout(x.transfer.Unit, x.sizes())
	if err != nil {
		return err
	}
	keys, err := s.keys()
	if err != nil {
		return err
	}
	c := &cast.Sending{
		Path: s.castPath(x), ID: uint32(x.transfer.ID), Layout: layout, Items: x.items, Counters: &s.casts,
		Stop: x.ctx.Done(), Past: s.past(x),
	}
	if keys != nil {
		c.Keys = keys
	}
	s.mu.Lock()
	for _, a := range x.targets {
		c.Receivers = append(c.Receivers, cast.Receiver{ID: a.Incarnation, IP: x.addrs[a]})
	}
	x.sending.Store(c)
	x.count(c.Segments.Load)
	s.mu.Unlock()
	return c.Run()
}

func (s *Store) receiveCast(x *session, r *transfer.Receiver) error {
	keys, err := s.keys()
	if err != nil {
		return err
	}
	if r.Complete() {
		s.have(x)
		return nil
	}
	c := &cast.Receiving{
		Path: s.castPath(x), ID: uint32(x.transfer.ID), Receiver: r, Self: s.self.Incarnation,
		Source: x.addrs[x.transfer.Source], Direct: s.pool.Direct(), Write: s.write(x), Counters: &s.casts,
		Stop: x.ctx.Done(), Loss: s.settings.loss, Past: s.past(x),
	}
	if keys != nil {
		c.Keys = keys
	}
	x.count(c.Segments.Load)
	return c.Run(func() {}, func() { s.have(x) })
}

func (s *Store) receiveChain(x *session, r *transfer.Receiver) error {
	keys, err := s.keys()
	if err != nil {
		return err
	}
	x.incoming = &chain.Incoming{
		Receiver: r, Direct: s.pool.Direct(), Write: s.write(x), Progress: chain.NewProgress(r.Next(0)),
		Counters: &s.links, Sided: s.sides(x, true),
	}
	if keys != nil {
		x.incoming.Keys = keys
	}
	if r.Complete() {
		s.have(x)
	}
	x.count(x.incoming.Progress.Segments)
	close(x.ready)
	<-x.ctx.Done()
	x.incoming.Stop()
	return nil
}

func (s *Store) sendChain(x, upstream *session, to netip.AddrPort, sided bool) error {
	keys, err := s.keys()
	if err != nil {
		return err
	}
	o := &chain.Outgoing{
		Local: s.path.IP, Peer: to, Transfer: x.transfer.ID, Self: s.self.Incarnation, Items: x.items,
		Counters: &s.links,
	}
	if keys != nil {
		o.Keys = keys
	}
	x.count(o.Segments.Load)
	if upstream != nil {
		select {
		case <-upstream.ready:
		case <-upstream.ctx.Done():
		case <-x.ctx.Done():
			return nil
		}
		if s.share(x, upstream) {
			o.Layout, o.Items, o.Progress = upstream.layout, upstream.items, upstream.incoming.Progress
			o.Sided = s.sides(x, sided)
			return o.Run(x.ctx)
		}
		o.Items = x.items
	}
	if o.Layout, err = transfer.NewLayout(chain.Unit, x.sizes()); err != nil {
		return err
	}
	o.Progress, o.Sided = chain.NewProgress(o.Layout.Total()), s.sides(x, sided)
	return o.Run(x.ctx)
}

// share takes the copies that another session brings. When that has ended, everything is here, and false is returned.
func (s *Store) share(x, from *session) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case x.shares || len(x.items) > 0:
		return x.shares // before, already
	case len(from.copies) == 0:
		s.use(x)
		return false
	}
	x.shares = true
	for _, c := range from.copies {
		c.refs++
		x.copies = append(x.copies, c)
	}
	return true
}
