// Package mem is a transport between the Systems of one process: a hub that copies the bytes of each packet into the
// receiver's arena. It needs no socket and no privilege, works on every operating system, and can be made to lose,
// duplicate and reorder, so it serves tests and demos and shows what a Transport must do at the least.
//
// The sender copies, in its own goroutine, into frames that the receiver set out beforehand. Each receiver has a
// bounded queue; what finds it full, or finds no frame set out, is dropped and counted. Nothing is ever retried here.
package mem

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"github.com/khamsin-io/khamsin/dataplane"
)

// portMax is the last endpoint a hub gives out. Endpoints are not given twice.
const portMax = 65535

// Hub connects the transports that it opened. Any goroutine may use it.
type Hub struct {
	mu       sync.RWMutex // held for reading while a batch is delivered; taken before an inbox's
	nextPort uint32
	stations map[dataplane.Endpoint]*Transport
	members  map[dataplane.Channel][]*Transport // in the order of subscription
}

// NewHub returns a hub without transports.
func NewHub() *Hub {
	return &Hub{
		nextPort: 1,
		stations: map[dataplane.Endpoint]*Transport{},
		members:  map[dataplane.Channel][]*Transport{},
	}
}

// Open returns a new transport of the hub. Its endpoint is 127.0.0.1 with a port that the hub never gave before.
func (h *Hub) Open(cfg Config) (*Transport, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	t, err := newTransport(h, cfg.withDefaults())
	if err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.nextPort > portMax {
		t.release()
		return nil, fmt.Errorf("mem: all %d endpoints of the hub were given out", portMax)
	}
	port := uint16(h.nextPort)
	t.local = dataplane.EndpointOf(netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port))
	h.nextPort++
	h.stations[t.local] = t
	return t, nil
}

// Inject delivers a datagram as a stranger would send it: any bytes, from any endpoint. It goes to the subscribers of
// ch, or when ch is zero to the transport at to.
func (h *Hub) Inject(from, to dataplane.Endpoint, ch dataplane.Channel, payload []byte) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	h.deliver(dataplane.Packet{From: from, To: to, Channel: ch}, payload)
}

// deliver copies a packet to its receivers and tells whether there was any such destination; a channel always is one.
// The caller holds mu for reading.
func (h *Hub) deliver(p dataplane.Packet, payload []byte) bool {
	if p.Channel != 0 {
		for _, t := range h.members[p.Channel] {
			t.inbox.put(p, payload)
			t.bell.Ring()
		}
		return true
	}
	t := h.stations[p.To]
	if t == nil {
		return false
	}
	t.inbox.put(p, payload)
	t.bell.Ring()
	return true
}

// subscribe adds t to the channel's members, unless it is one already or was closed.
func (h *Hub) subscribe(t *Transport, ch dataplane.Channel) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if t.closed.Load() {
		return dataplane.ErrClosed
	}
	if !slices.Contains(h.members[ch], t) {
		h.members[ch] = append(h.members[ch], t)
	}
	return nil
}

// unsubscribe removes t from the channel's members if it is one.
func (h *Hub) unsubscribe(t *Transport, ch dataplane.Channel) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if t.closed.Load() {
		return dataplane.ErrClosed
	}
	h.drop(t, ch)
	return nil
}

// drop removes t from a channel. The caller holds mu for writing.
func (h *Hub) drop(t *Transport, ch dataplane.Channel) {
	left := slices.DeleteFunc(h.members[ch], func(m *Transport) bool { return m == t })
	if len(left) == 0 {
		delete(h.members, ch)
		return
	}
	h.members[ch] = left
}

// remove makes t unreachable. When it returns, nobody is delivering to t, and nobody will.
func (h *Hub) remove(t *Transport) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.stations, t.local)
	for ch := range h.members {
		h.drop(t, ch)
	}
}
