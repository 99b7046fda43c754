package oob

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/oob/internal/cast"
	"github.com/khamsin-io/khamsin/oob/internal/catalog"
	"github.com/khamsin-io/khamsin/oob/internal/chain"
	"github.com/khamsin-io/khamsin/oob/internal/memory"
	"github.com/khamsin-io/khamsin/oob/internal/transfer"
	"github.com/khamsin-io/khamsin/vsync"
)

// Store is what one process has of the objects of a group. All methods may be called by any goroutine.
type Store struct {
	group    *vsync.Group
	port     *vsync.ServicePort
	self     vsync.Address
	path     vsync.Path
	index    int // of the interface
	unit     int // bytes of data in a packet
	settings settings
	log      *slog.Logger
	pool     *memory.Pool
	listener net.Listener
	sided    dataplane.OneSided // nil: bytes are not written into others' memory
	troubled atomic.Bool        // it was said why they are not
	bypass   dataplane.Bypass   // nil: multicasts go by UDP
	stacked  atomic.Bool        // it was said why some do nevertheless
	casts    cast.Counters
	links    chain.Counters

	ctx    context.Context // ends when the store does
	cancel context.CancelCauseFunc
	all    sync.WaitGroup

	greeters atomic.Int32 // connections that are served

	mu        sync.Mutex // guards what follows
	catalog   *catalog.Catalog
	greeted   bool
	loading   []byte               // pieces of state, of a joiner
	copies    map[string]*copied   // of the catalogue's objects, those that are here or arrive
	arriving  map[string]*copied   // those of them that are not complete
	drafts    map[string]*register // that wait for their place in the group's order
	requests  map[uint64]*Request
	lastReq   uint64
	sessions  map[sessionKey]*session
	leaving   map[*session]bool // that are stopped, and still use objects
	graves    graves
	changed   chan struct{} // closed at each change
	commands  []catalog.Command
	queued    chan struct{} // has one when there are commands
	notifiers []func(*Object)
	arrivals  []*Object
	arrived   chan struct{} // has one when there are arrivals
	closed    bool
}

// register is a registration that is under way.
type register struct {
	copy *copied
	done chan struct{}
	err  error
}

// Attach gives a group a store of objects. It must be called before Join, by every member. Close it when the group has
// not been joined; otherwise it ends with the group.
func Attach(g *vsync.Group, opts ...Option) (*Store, error) {
	sys := g.System()
	settings, err := newSettings(sys.Config(), opts)
	if err != nil {
		return nil, fmt.Errorf("oob: %w", err)
	}
	path, err := sys.Path()
	if err != nil {
		return nil, fmt.Errorf("oob: %w", err)
	}
	itf, err := net.InterfaceByName(path.Interface)
	if err != nil {
		return nil, fmt.Errorf("oob: interface %s: %w", path.Interface, err)
	}
	s := &Store{
		group: g, self: sys.Address(), path: path, index: itf.Index, unit: unitOf(itf.MTU), settings: settings,
		log: sys.Logger().With("group", g.Name()), catalog: catalog.New(settings.transfers),
		copies: make(map[string]*copied), arriving: make(map[string]*copied), drafts: make(map[string]*register),
		requests: make(map[uint64]*Request),
		sessions: make(map[sessionKey]*session), leaving: make(map[*session]bool),
		changed: make(chan struct{}), queued: make(chan struct{}, 1),
		arrived: make(chan struct{}, 1),
	}
	if path.IP.Is6() && itf.Flags&net.FlagLoopback != 0 {
		s.path.Multicast = false // the loopback has no route for it
	}
	s.sided = sidedOf(sys, &settings)
	if !settings.stack {
		s.bypass = sys.Bypass()
	}
	if s.pool, err = memory.New(settings.dir, settings.spares()); err != nil {
		return nil, fmt.Errorf("oob: %w", err)
	}
	s.listener, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(path.IP, 0)))
	if err != nil {
		s.pool.Close()
		return nil, fmt.Errorf("oob: listen: %w", err)
	}
	s.port, err = g.AddService(vsync.Service{
		Code: vsync.CodeObjects, Name: "objects", OnMessage: s.onMessage, OnView: s.onView, MakeState: s.makeState,
		LoadState: s.loadState, OnEnd: func(reason error) { s.end(reason) },
	})
	if err != nil {
		s.pool.Close()
		return nil, errors.Join(err, s.listener.Close())
	}
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	s.all.Go(s.commit)
	s.all.Go(s.notify)
	s.all.Go(s.accept)
	return s, nil
}

// unitOf returns how many bytes of an object a packet carries on an interface, whatever the family and with room for a
// seal: a multiple of 64, which parity needs.
func unitOf(mtu int) int {
	const most, headers, grain = 9000, 40 + 8 + transfer.HeadLen + cast.TagLen + 8, 64
	return max(grain, (min(mtu, most)-headers)/grain*grain)
}

// Close ends the store here: transfers stop, and objects that are not held by a handle are freed. It does not change
// what the catalogue says; leaving the group does.
func (s *Store) Close() error {
	s.end(ErrClosed)
	s.all.Wait()
	return nil
}

// end ends everything, once.
func (s *Store) end(reason error) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return
	}
	s.closed = true
	if reason == nil {
		reason = ErrClosed
	}
	if !errors.Is(reason, ErrClosed) {
		reason = fmt.Errorf("%w: %w", ErrClosed, reason)
	}
	s.cancel(reason)
	_ = s.listener.Close()
	requests, drafts := s.requests, s.drafts
	s.requests, s.drafts = make(map[uint64]*Request), make(map[string]*register)
	for key, x := range s.sessions {
		s.stopSession(key, x)
	}
	for name, c := range s.copies {
		delete(s.copies, name)
		s.release(c)
	}
	for _, o := range s.arrivals {
		s.release(o.copy)
	}
	s.arrivals = nil
	s.wake()
	s.mu.Unlock()
	for _, r := range requests { // in any order
		r.end(reason)
	}
	for _, d := range drafts {
		d.err = reason
		close(d.done)
	}
	go func() {
		s.all.Wait()
		s.pool.Close()
	}()
}

// wake tells those that wait that something has changed. Store.mu is held.
func (s *Store) wake() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// Create returns a new object of size bytes, which are zero. Fill Bytes, then Register it. Close gives it up.
func (s *Store) Create(name string, size int64) (*Object, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	if size < 0 {
		return nil, fmt.Errorf("object %q: a size of %d", name, size)
	}
	var b *memory.Block
	err := s.heavy(size, func() (err error) {
		if b, err = s.pool.Alloc(size); err == nil && !b.Fresh() {
			clear(b.Data)
		}
		return err
	})
	if err != nil {
		return nil, named(name, err)
	}
	return s.draft(name, b), nil
}

// FromFile returns an object with the bytes of a file, which is mapped, not read. While the object is in use the file
// must not change, and must not get shorter.
func (s *Store) FromFile(name, path string) (*Object, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	b, err := memory.Map(path)
	if err != nil {
		return nil, named(name, err)
	}
	return s.draft(name, b), nil
}

func (s *Store) draft(name string, b *memory.Block) *Object {
	c := &copied{name: name, size: uint64(len(b.Data)), block: b, item: transfer.Item{Data: b.Data}}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.handle(c)
}

// Register makes objects known to the group, with this process as their holder. No bytes move. It returns when they
// have their place in the group's order, so that whatever is ordered later finds them, or ErrExists when a name is
// taken by other bytes. From then on the bytes must not change but through Edit.
func (s *Store) Register(ctx context.Context, objects ...*Object) error {
	if s.port.InHandler(ctx) {
		return fmt.Errorf("register: %w", vsync.ErrWouldBlock)
	}
	waits := make([]*register, 0, len(objects))
	var commands []catalog.Command
	for _, o := range objects {
		c := o.copy
		s.mu.Lock()
		data, registered := c.item.Data, c.gen != 0 || c.item.List != nil
		s.mu.Unlock()
		if registered {
			return named(c.name, ErrRegistered)
		}
		list, digest := s.sum(data)
		d := &register{copy: c, done: make(chan struct{})}
		s.mu.Lock()
		if s.closed || s.drafts[c.name] != nil {
			closed := s.closed
			s.mu.Unlock()
			if closed {
				return named(c.name, context.Cause(s.ctx))
			}
			return named(c.name, ErrExists)
		}
		c.item.List, c.item.Digest = list, digest
		c.refs++
		s.drafts[c.name] = d
		s.mu.Unlock()
		waits = append(waits, d)
		commands = append(commands, catalog.Command{
			Kind: catalog.KindRegister, Name: c.name, Size: c.size, Digest: digest,
		})
	}
	s.submit(commands...)
	var faults []error
	for _, d := range waits {
		select {
		case <-d.done:
			faults = append(faults, named(d.copy.name, d.err))
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return errors.Join(faults...)
}

// Replicate sets which members hold an object, and returns at once. Those that are not listed lose it as soon as the
// request has its place in the group's order, before any copy is complete; those that have none get one. A process that
// is not in the present view cannot be listed. An empty list deletes the object everywhere.
func (s *Store) Replicate(name string, holders []vsync.Address) *Request {
	return s.ReplicateAll([]string{name}, holders)[0]
}

// ReplicateAll is Replicate of several objects in one message.
func (s *Store) ReplicateAll(names []string, holders []vsync.Address) []*Request {
	requests := make([]*Request, len(names))
	var commands []catalog.Command
	v := s.group.View()
	for i, name := range names {
		r := newRequest(name)
		requests[i] = r
		if err := CheckName(name); err != nil {
			r.end(err)
			continue
		}
		if v == nil {
			r.end(vsync.ErrNotMember)
			continue
		}
		if at := slices.IndexFunc(holders, func(a vsync.Address) bool { return !v.Contains(a) }); at >= 0 {
			r.end(fmt.Errorf("%w: %v cannot hold it", vsync.ErrNotMember, holders[at]))
			continue
		}
		update, err := s.publish(name)
		if err != nil {
			r.end(err)
			continue
		}
		commands = append(commands, update...)
		s.mu.Lock()
		if s.closed {
			s.mu.Unlock()
			r.end(context.Cause(s.ctx))
			continue
		}
		s.lastReq++
		id := s.lastReq
		s.requests[id] = r
		s.mu.Unlock()
		commands = append(commands, catalog.Command{
			Kind: catalog.KindReplicate, Name: name, Request: id, List: slices.Clone(holders),
		})
	}
	s.submit(commands...)
	return requests
}

// publish makes changed bytes those that copies are made of: it returns the command that says so.
func (s *Store) publish(name string) ([]catalog.Command, error) {
	s.mu.Lock()
	c := s.copies[name]
	if c == nil || !c.held || c.edit == nil {
		s.mu.Unlock()
		return nil, nil
	}
	c.refs++
	edit, old := c.edit, c.item.Digest
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.release(c)
	}()
	if _, d := s.sum(edit); d == old {
		return nil, nil
	}
	var b *memory.Block
	err := s.heavy(int64(c.size), func() (err error) {
		if b, err = s.pool.Alloc(int64(c.size)); err == nil {
			copy(b.Data, edit)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	list, digest := s.sum(b.Data)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.copies[name] != c {
		b.Free()
		return nil, nil // deleted meanwhile
	}
	// The view that the application edits keeps its memory; what is sent from now on is a copy of it.
	next := &copied{
		name: name, size: c.size, gen: c.gen, block: b, held: true, refs: 1,
		item: transfer.Item{Data: b.Data, List: list, Digest: digest}, edit: c.edit,
	}
	next.endEdit = func() { s.release(c) }
	c.refs++
	s.copies[name] = next
	s.release(c) // the store's own
	return []catalog.Command{{Kind: catalog.KindUpdate, Name: name, Digest: digest}}, nil
}

// Delete removes an object everywhere. Handles keep their bytes until they are closed.
func (s *Store) Delete(name string) *Request { return s.Replicate(name, nil) }

// Fetch waits until this process holds an object, and returns a handle of it. The name need not be known yet. When the
// object is deleted it returns ErrDeleted, and ErrLost when nobody has it any more. Inside a handler of the group it
// returns ErrWouldBlock instead of waiting.
func (s *Store) Fetch(ctx context.Context, name string) (*Object, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		if c := s.copies[name]; c != nil && c.held {
			return s.handle(c), nil
		}
		if s.catalog.Object(name) == nil {
			if err := s.graves.of(name); err != nil {
				return nil, named(name, err)
			}
		}
		if s.closed {
			return nil, named(name, context.Cause(s.ctx))
		}
		if s.port.InHandler(ctx) {
			return nil, named(name, vsync.ErrWouldBlock)
		}
		changed := s.changed
		s.mu.Unlock()
		var err error
		select {
		case <-changed:
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
		if s.mu.Lock(); err != nil {
			return nil, named(name, err)
		}
	}
}

// OnArrive adds a function that is called with every object that another process has sent here whole, on a goroutine
// of the store's own, one call after the other. The handle is the function's to close.
func (s *Store) OnArrive(f func(o *Object)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.notifiers = append(s.notifiers, f)
}

// graves remembers how objects ended.
type graves struct {
	reasons map[string]error
	order   []string
}

// gravesMax is of how many objects the end is remembered.
const gravesMax = 4096

func (g *graves) of(name string) error { return g.reasons[name] }

func (g *graves) dig(name string, reason error) {
	if g.reasons == nil {
		g.reasons = make(map[string]error)
	}
	if _, ok := g.reasons[name]; !ok {
		if g.order = append(g.order, name); len(g.order) > gravesMax {
			delete(g.reasons, g.order[0])
			g.order = g.order[1:]
		}
	}
	g.reasons[name] = reason
}

func (g *graves) fill(name string) {
	if _, ok := g.reasons[name]; ok {
		delete(g.reasons, name)
		g.order = slices.DeleteFunc(g.order, func(n string) bool { return n == name })
	}
}
