package bpf

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
)

// DemuxConfig says how a transport uses the demultiplexer of its interface.
type DemuxConfig struct {
	// IfIndex is the interface, in the network namespace of Open's caller.
	IfIndex int

	// Mode is where the program is attached when it is not there yet.
	Mode Mode

	// VLAN is the VLAN identifier of the packets to receive, 0 for untagged ones.
	VLAN uint16

	// FrameMax is the longest Ethernet frame in bytes that the transport's sockets take. Longer ones go to the stack.
	FrameMax int

	// ByGroup limits multicasts to the groups that were admitted; packets that belong to no group always come.
	ByGroup bool

	// Exclusive promises that nobody on this host receives on the transport's group port by other means than this
	// interface's demultiplexer. Multicasts that no transport asked for are then dropped instead of being passed on.
	Exclusive bool

	// Verify drops packets whose checksum is wrong before they are handed over. It costs a few nanoseconds for every
	// byte; receivers verify anyway.
	Verify bool
}

// Counter is a number of packets and their bytes, Ethernet headers included.
type Counter struct{ Packets, Bytes uint64 }

// Demux is a transport's part in the demultiplexer of an interface.
type Demux struct {
	cfg   DemuxConfig
	ns    *namespace
	at    *attachment
	slot  uint32
	claim *claim
	part  bool  // a branch: what it shares with others is not its own
	life  *life // of that

	mu     sync.Mutex
	closed bool
}

// life is how long a part and its branches have their program.
type life struct {
	mu   sync.RWMutex
	over bool
}

// OpenDemux attaches the program to an interface, or takes part in the one that is there.
func OpenDemux(cfg DemuxConfig) (*Demux, error) {
	d := &Demux{cfg: cfg, life: new(life)}
	var err error
	if d.ns, err = currentNamespace(); err != nil {
		return nil, fmt.Errorf("bpf: %w", err)
	}
	if d.at, err = attach(cfg.IfIndex, cfg.Mode); err != nil {
		return nil, errors.Join(err, d.ns.close())
	}
	if err := d.change(d.takeSlot); err != nil {
		return nil, errors.Join(err, d.at.close(), d.ns.close())
	}
	return d, nil
}

// Branch returns another part in the same program, with a slot of its own, for sockets that get what is sent to other
// addresses. Whatever comes there is handed over, of whichever group. It ends with d, though its Close is still due.
func (d *Demux) Branch(frameMax int) (*Demux, error) {
	b := &Demux{ns: d.ns, at: d.at, part: true, life: d.life}
	b.cfg = DemuxConfig{IfIndex: d.cfg.IfIndex, Mode: d.cfg.Mode, VLAN: d.cfg.VLAN, FrameMax: frameMax,
		Exclusive: d.cfg.Exclusive}
	if err := b.change(b.takeSlot); err != nil {
		return nil, err
	}
	return b, nil
}

// Inside runs fn on a thread that is in the interface's network namespace, as sockets must be that are made there.
func (d *Demux) Inside(fn func() error) error { return d.ns.do(fn) }

// Mode returns where the program runs.
func (d *Demux) Mode() Mode { return d.at.mode }

// change runs fn, which changes what the processes share.
func (d *Demux) change(fn func(table) error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.life.mu.RLock()
	defer d.life.mu.RUnlock()
	if d.closed || d.life.over {
		return fmt.Errorf("bpf: %w", ErrClosed)
	}
	err := d.ns.do(func() error {
		return locked(d.cfg.IfIndex, func() error { return fn(table{&d.at.maps}) })
	})
	if err != nil {
		return fmt.Errorf("bpf: interface %d: %w", d.cfg.IfIndex, err)
	}
	return nil
}

// takeSlot claims the first free slot, and clears away what its last owner, or others, left by dying.
func (d *Demux) takeSlot(t table) error {
	if err := d.reap(t); err != nil {
		return err
	}
	dir, err := t.directory()
	if err != nil {
		return err
	}
	for slot := range uint32(SlotsMax) {
		if dir.Members&(1<<slot) != 0 {
			continue
		}
		c, err := tryClaim(d.cfg.IfIndex, slotName(slot))
		if err != nil {
			return err
		}
		if c == nil {
			continue // somebody is on the way out
		}
		d.slot, d.claim = slot, c
		dir.Members |= 1 << slot
		config := demuxSlot{Limit: uint32(d.cfg.FrameMax)}
		if d.cfg.Verify {
			config.Flags = slotVerify
		}
		if err := errors.Join(t.setDirectory(dir), t.maps.Slots.Put(slot, &config)); err != nil {
			return errors.Join(err, c.release())
		}
		return nil
	}
	return ErrSlots
}

// reap clears away what transports left that are no more.
func (d *Demux) reap(t table) error {
	dir, err := t.directory()
	if err != nil {
		return err
	}
	for slot := range uint32(SlotsMax) {
		if dir.Members&(1<<slot) == 0 || d.claim != nil && slot == d.slot {
			continue
		}
		c, err := tryClaim(d.cfg.IfIndex, slotName(slot))
		if err != nil {
			return err
		}
		if c == nil {
			continue // alive
		}
		if err := errors.Join(t.forget(1<<slot), c.release()); err != nil {
			return err
		}
	}
	return nil
}

// AddSocket makes an AF_XDP socket the one that gets this transport's packets of a queue. The kernel removes it when
// the socket is closed.
func (d *Demux) AddSocket(queue, fd int) error {
	if queue < 0 || queue >= QueuesMax {
		return &MissingError{Need: NeedQueue, What: fmt.Sprintf("use queue %d", queue),
			Hint: fmt.Sprintf("queues up to %d can have sockets: give the interface fewer", QueuesMax-1)}
	}
	d.life.mu.RLock()
	defer d.life.mu.RUnlock()
	if d.life.over {
		return fmt.Errorf("bpf: %w", ErrClosed)
	}
	if err := d.at.maps.Sockets.Put(d.slot*QueuesMax+uint32(queue), uint32(fd)); err != nil {
		return explain(fmt.Sprintf("put the socket of queue %d into the map", queue), err)
	}
	return nil
}

// Listen asks for the UDP packets to an address and port. An invalid address stands for all multicast addresses that
// nobody listens to: it says that the transport knows of none, so that the program may drop them when all say so.
func (d *Demux) Listen(to netip.AddrPort) error {
	return d.change(func(t table) error {
		if err := d.reap(t); err != nil {
			return err
		}
		byGroup := d.cfg.ByGroup && to.Addr().IsMulticast()
		s := share{slot: d.slot, grouped: byGroup, exclusive: d.cfg.Exclusive}
		return t.join(keyOf(to, d.cfg.VLAN, 0), s)
	})
}

// Unlisten takes Listen back.
func (d *Demux) Unlisten(to netip.AddrPort) error {
	return d.change(func(t table) error { return t.leave(keyOf(to, d.cfg.VLAN, 0), 1<<d.slot) })
}

// Admit asks for the packets of one group to an address that Listen was called for, with ByGroup.
func (d *Demux) Admit(to netip.AddrPort, group uint32) error {
	return d.change(func(t table) error {
		return t.join(keyOf(to, d.cfg.VLAN, group), share{slot: d.slot, exclusive: d.cfg.Exclusive})
	})
}

// Revoke takes Admit back.
func (d *Demux) Revoke(to netip.AddrPort, group uint32) error {
	return d.change(func(t table) error { return t.leave(keyOf(to, d.cfg.VLAN, group), 1<<d.slot) })
}

// Counters returns, by name, what became of all packets of the interface since the program was attached.
func (d *Demux) Counters() (map[string]Counter, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, fmt.Errorf("bpf: %w", ErrClosed)
	}
	all := make(map[string]Counter, len(reasons))
	for i, name := range reasons {
		c, err := table{&d.at.maps}.read(uint32(i))
		if err != nil {
			return nil, fmt.Errorf("bpf: %w", err)
		}
		all[name] = c
	}
	return all, nil
}

// Matched returns the packets that a rule of Listen, or with a group one of Admit, has matched.
func (d *Demux) Matched(to netip.AddrPort, group uint32) (Counter, error) {
	var c Counter
	err := d.change(func(t table) error {
		var r demuxRule
		key := keyOf(to, d.cfg.VLAN, group)
		if err := t.maps.Rules.Lookup(&key, &r); err != nil {
			return fmt.Errorf("rule for %v, group %d: %w", to, group, err)
		}
		var err error
		c, err = t.read(r.Counter)
		return err
	})
	return c, err
}

// Close takes back everything that this transport asked for. The program goes with its last transport.
func (d *Demux) Close() error {
	err := d.change(func(t table) error { return t.forget(1 << d.slot) })
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil
	}
	d.closed = true
	d.life.mu.Lock()
	defer d.life.mu.Unlock()
	if d.part {
		if d.life.over {
			err = nil // what it asked for went with the whole, or goes with its name
		}
		return errors.Join(err, d.claim.release())
	}
	d.life.over = true
	err = errors.Join(err, d.claim.release())
	return errors.Join(err, d.at.close(), d.ns.close())
}
