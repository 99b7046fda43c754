package host

import (
	"errors"
	"slices"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/clock"
	"github.com/khamsin-io/khamsin/dataplane/invariant"
	"github.com/khamsin-io/khamsin/vsync/internal/engine"
)

// send hands packets to the transport, behind those that it did not take before. What it does not take now waits in
// unsent, which the arena bounds: every packet holds a frame.
func (h *Host) send(now clock.Time, packets []dataplane.Packet) {
	h.own.sent.count(h, packets)
	if len(h.own.unsent) > 0 {
		h.own.unsent = append(h.own.unsent, packets...)
		rest := h.transmit(h.own.unsent)
		n := copy(h.own.unsent, rest)
		clear(h.own.unsent[n:])
		h.own.unsent = h.own.unsent[:n]
	} else if rest := h.transmit(packets); len(rest) > 0 {
		h.own.unsent = append(h.own.unsent, rest...)
	}
	if len(h.own.unsent) > 0 {
		h.own.retryAt = now.Add(retryAfter)
	}
}

// transmit sends as much from the front as the transport takes and returns the rest. A packet that it refuses is
// dropped as the network might drop it.
func (h *Host) transmit(packets []dataplane.Packet) []dataplane.Packet {
	for len(packets) > 0 {
		n, err := h.transport.Send(packets)
		packets = packets[n:]
		switch {
		case errors.Is(err, dataplane.ErrClosed):
			h.releasePackets(packets)
			return nil
		case err != nil:
			if h.own.sendErr++; h.own.sendErr == 1 {
				h.journal.add(line{text: "send; further errors of this kind are not logged", err: err})
			}
			h.arena.Release(packets[0].Frame)
			packets = packets[1:]
		case n == 0:
			return packets
		}
	}
	return nil
}

func (h *Host) releasePackets(packets []dataplane.Packet) {
	for i := range packets {
		h.arena.Release(packets[i].Frame)
	}
}

// deliver appends deliveries to the queues of their groups. A group that ended has none: what comes late is dropped.
func (h *Host) deliver(deliveries []engine.Delivery) {
	for i := range deliveries {
		d := &deliveries[i]
		g := h.group(d.Group)
		switch {
		case g == nil:
			h.drop(d)
		case d.Kind == engine.DeliverPeer:
			h.enqueue(g.peers, d)
		case d.Kind == engine.DeliverReply:
			g.app.Early(d)
		case d.Kind == engine.DeliverEnd:
			g.end(d.Err)
		case d.Kind == engine.DeliverView:
			g.app.Early(d)
			h.enqueue(g.casts, d)
		default:
			h.enqueue(g.casts, d)
		}
	}
}

// enqueue appends to a queue and notes that its executor must be woken at the end of the turn.
func (h *Host) enqueue(q *queue, d *engine.Delivery) {
	q.push(d)
	if !q.marked {
		q.marked = true
		h.own.dirty = append(h.own.dirty, q)
	}
}

// drop releases a delivery that nobody will get.
func (h *Host) drop(d *engine.Delivery) {
	if !d.Frame.IsZero() {
		h.arena.Release(d.Frame)
	}
}

// group returns the group of a handle, nil when it is over.
func (h *Host) group(handle engine.Handle) *Group {
	if int(handle) < len(h.own.groups) {
		return h.own.groups[handle]
	}
	return nil
}

// handlesMax is far above the groups that one process can join; handles are numbered from the bottom.
const handlesMax = 1 << 24

// setGroup makes g the group of a handle; nil forgets the handle.
func (h *Host) setGroup(handle engine.Handle, g *Group) {
	if handle >= handlesMax {
		invariant.Fail("host: handle %d above %d", handle, handlesMax)
	}
	if missing := int(handle) + 1 - len(h.own.groups); missing > 0 {
		h.own.groups = append(h.own.groups, make([]*Group, missing)...)
	}
	h.own.groups[handle] = g
}

// onEvent tells whoever waits for it. Owner only.
func (h *Host) onEvent(e *engine.Event) {
	switch e.Kind {
	case engine.EventRoom, engine.EventPeerRoom, engine.EventFlushed, engine.EventStateRoom, engine.EventJoined:
	default:
		h.journal.add(line{event: *e, hasEvent: true, group: h.groupName(e.Group)})
	}
	switch e.Kind {
	case engine.EventAttached:
		h.setAttached()
	case engine.EventEnded:
		if g := h.group(e.Group); g != nil {
			g.end(e.Err)
			h.setGroup(e.Group, nil)
		}
	case engine.EventRoom:
		if g := h.group(e.Group); g != nil && !slices.Contains(h.own.roomed, g) {
			h.own.roomed = append(h.own.roomed, g)
		}
	case engine.EventPeerRoom:
		if g := h.group(e.Group); g != nil {
			g.peerRoom.open()
		}
	case engine.EventFlushed:
		if w := h.own.flushes[e.Token]; w != nil {
			delete(h.own.flushes, e.Token)
			w.finish(e.Err)
		}
	case engine.EventStateRoom:
		if r := h.own.rooms[e.Token]; r != nil {
			r.open()
		}
	case engine.EventSuspect:
		if h.cfg.OnSuspect != nil {
			h.cfg.OnSuspect(e.Peer)
		}
	case engine.EventOver:
		h.setOver(e.Err)
	}
}

func (h *Host) setAttached() {
	select {
	case <-h.attached:
	default:
		close(h.attached)
	}
}

func (h *Host) groupName(handle engine.Handle) string {
	if g := h.group(handle); g != nil {
		return g.name
	}
	return ""
}
