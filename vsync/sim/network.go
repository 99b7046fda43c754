package sim

import (
	"hash/crc32"
	"slices"
	"time"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/clock"
	"github.com/khamsin-io/khamsin/dataplane/wire"
)

// loopDelay is how long a node's packets to itself take. They are not subject to the weather.
const loopDelay = 2 * time.Microsecond

// packet is a datagram on its way. Copies that arrive undamaged share one.
type packet struct {
	data    []byte
	refs    int
	hash    uint64
	from    dataplane.Endpoint
	to      dataplane.Endpoint
	channel dataplane.Channel
}

// link is the state of the way from one node to another.
type link struct {
	lastArrival clock.Time // packets that are not reordered arrive in order
	burst       bool
	burstUntil  clock.Time // the present spell, bad or good, ends here
	deafUntil   clock.Time // everything is lost
}

// dropRule loses the next packets of a kind on a link; for stories.
type dropRule struct {
	from, to int       // node numbers
	kind     wire.Kind // KindNone: any
	left     int
}

// network carries packets between the nodes of a world.
type network struct {
	w        *World
	weather  Weather
	draw     random
	channels map[dataplane.Channel][]*node
	side     []bool // by node number: which side of the partition; nil: none
	rules    []dropRule
	free     []*packet
	crc      *crc32.Table
}

func newNetwork(w *World, weather Weather) *network {
	return &network{
		w: w, weather: weather, draw: newRandom(w.opts.Seed, drawNetwork),
		channels: map[dataplane.Channel][]*node{}, crc: crc32.MakeTable(crc32.Castagnoli),
	}
}

// subscribe adds a node to a channel. The lists stay sorted by node.
func (n *network) subscribe(ch dataplane.Channel, who *node) {
	list := n.channels[ch]
	i, found := slices.BinarySearchFunc(list, who, func(a, b *node) int { return a.number - b.number })
	if !found {
		n.channels[ch] = slices.Insert(list, i, who)
	}
}

func (n *network) unsubscribe(ch dataplane.Channel, who *node) {
	list := n.channels[ch]
	if i := slices.Index(list, who); i >= 0 {
		n.channels[ch] = slices.Delete(list, i, i+1)
	}
}

// send takes over a packet of a process. The frame stays with the caller.
func (n *network) send(p *process, pk *dataplane.Packet) {
	bytes := p.arena.Bytes(pk.Frame)
	pkt := n.get(bytes)
	pkt.from, pkt.to, pkt.channel = p.addr.Endpoint(), pk.To, pk.Channel
	w := n.w
	w.stats.Packets++
	w.stats.Bytes += len(bytes)
	w.trace.note(traceSend, w.now, uint64(p.node.number), pkt.hash)
	if w.trace.out != nil {
		w.trace.printf(w.now, p.name(), "send to %s: %s", n.destination(pk), describe(bytes))
	}
	if pk.Channel != 0 {
		for _, to := range n.channels[pk.Channel] {
			n.transmit(p.node, to, pkt)
		}
	} else if to := w.byEndpoint[pk.To]; to != nil {
		n.transmit(p.node, to, pkt)
	}
	n.put(pkt)
}

func (n *network) destination(pk *dataplane.Packet) string {
	if pk.Channel != 0 {
		return "channel " + pk.Channel.IPv4().String()
	}
	if to := n.w.byEndpoint[pk.To]; to != nil {
		return to.name()
	}
	return pk.To.String()
}

// transmit decides the fate of one packet on one link.
func (n *network) transmit(from, to *node, pkt *packet) {
	if from == to {
		n.arrive(to, pkt, n.w.now.Add(loopDelay))
		return
	}
	l := n.link(from, to)
	if why := n.lost(from, to, l, pkt); why != "" {
		n.w.stats.Lost++
		n.w.trace.note(traceLose, n.w.now, uint64(to.number), pkt.hash)
		if n.w.trace.out != nil {
			n.w.trace.printf(n.w.now, from.name(), "  lost on the way to %s (%s): %s", to.name(), why,
				describe(pkt.data))
		}
		return
	}
	copies := 1
	if n.draw.chance(n.weather.Duplicate) {
		copies = 2 + n.draw.IntN(2)
	}
	for range copies {
		n.deliver(l, to, pkt)
	}
}

// deliver schedules the arrival of one copy.
func (n *network) deliver(l *link, to *node, pkt *packet) {
	at := n.w.now.Add(n.weather.Delay)
	if n.weather.Jitter > 0 {
		at = at.Add(n.draw.around(n.weather.Jitter))
	}
	if n.draw.chance(n.weather.Reorder) {
		at = at.Add(n.draw.upTo(n.weather.ReorderBy))
	} else {
		at = max(at, l.lastArrival+1)
		l.lastArrival = at
	}
	if n.draw.chance(n.weather.Corrupt) {
		bad := n.get(pkt.data)
		bad.from, bad.to, bad.channel = pkt.from, pkt.to, pkt.channel
		for range 1 + n.draw.IntN(3) {
			bad.data[n.draw.IntN(len(bad.data))] ^= 1 << n.draw.IntN(8)
		}
		n.w.stats.Damaged++
		n.arrive(to, bad, at)
		n.put(bad)
		return
	}
	n.arrive(to, pkt, at)
}

func (n *network) arrive(to *node, pkt *packet, at clock.Time) {
	pkt.refs++
	n.w.agenda.add(event{at: at, kind: eventArrival, node: to, packet: pkt})
}

// lost tells why a packet does not arrive; empty when it does.
func (n *network) lost(from, to *node, l *link, pkt *packet) string {
	switch {
	case n.side != nil && n.sideOf(from) != n.sideOf(to):
		return "partition"
	case l.deafUntil > n.w.now:
		return "one-way"
	case from.proc != nil && from.proc.mute && from.proc.heardBy != to.number:
		return "crash"
	case pkt.channel != 0 && (from.muteUntil > n.w.now || to.deafUntil > n.w.now):
		return "multicast one-way"
	case n.ruled(from, to, pkt):
		return "rule"
	case n.draw.chance(n.weather.Loss):
		return "loss"
	case pkt.channel != 0 && n.draw.chance(n.weather.MulticastLoss):
		return "multicast loss"
	case n.weather.BurstLoss > 0 && n.inBurst(l) && n.draw.chance(n.weather.BurstLoss):
		return "burst"
	}
	return ""
}

func (n *network) sideOf(who *node) bool { return who.number < len(n.side) && n.side[who.number] }

// inBurst moves a link's spells up to now and tells whether it is in a bad one.
func (n *network) inBurst(l *link) bool {
	for l.burstUntil <= n.w.now {
		l.burst = l.burstUntil != 0 && !l.burst
		mean := n.weather.BurstGap
		if l.burst {
			mean = n.weather.BurstLength
		}
		l.burstUntil = max(l.burstUntil, n.w.now).Add(n.draw.around(mean) + 1)
	}
	return l.burst
}

// ruled tells whether a story's rule loses the packet.
func (n *network) ruled(from, to *node, pkt *packet) bool {
	for i := range n.rules {
		r := &n.rules[i]
		if r.left == 0 || r.from != from.number || r.to != to.number {
			continue
		}
		var h wire.Header
		if r.kind == wire.KindNone || h.Peek(pkt.data) == nil && h.Kind == r.kind {
			r.left--
			return true
		}
	}
	return false
}

func (n *network) link(from, to *node) *link {
	for len(from.links) <= to.number {
		from.links = append(from.links, make([]link, max(8, len(from.links)))...)
	}
	return &from.links[to.number]
}

// get returns a packet with a copy of the bytes and one reference.
func (n *network) get(bytes []byte) *packet {
	var pkt *packet
	if last := len(n.free) - 1; last >= 0 {
		pkt, n.free = n.free[last], n.free[:last]
	} else {
		pkt = &packet{data: make([]byte, 0, 2048)}
	}
	pkt.data = append(pkt.data[:0], bytes...)
	pkt.hash = uint64(crc32.Checksum(pkt.data, n.crc))<<16 | uint64(len(pkt.data)&0xffff)
	pkt.refs = 1
	return pkt
}

// put drops one reference.
func (n *network) put(pkt *packet) {
	if pkt.refs--; pkt.refs == 0 {
		n.free = append(n.free, pkt)
	}
}

// heal ends every fault of the network.
func (n *network) heal() {
	n.weather = n.weather.healed()
	n.side, n.rules = nil, nil
	for _, who := range n.w.nodes {
		clear(who.links)
		who.deafUntil, who.muteUntil = 0, 0
	}
}
