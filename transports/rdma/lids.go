package rdma

import "sync"

// lidsMax is how many hosts' identifiers are remembered. With more, those that were known are forgotten, and learned
// again.
const lidsMax = 1 << 14

// lids are the local identifiers of an InfiniBand network's ports. A datagram needs its destination's, and the address
// does not tell it; but what a host sends has the sender's. So a process can send to those that it has heard, by a
// channel at first. Over RoCE there are none.
type lids struct {
	mu    sync.RWMutex
	table map[[16]byte]uint16
	last  [16]byte // consecutive datagrams are often of one host
	at    uint16
}

// learn notes the identifier of a host. One goroutine.
func (l *lids) learn(host [16]byte, lid uint16) {
	if lid == 0 || l.at == lid && l.last == host {
		return
	}
	l.last, l.at = host, lid
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.table == nil || len(l.table) >= lidsMax {
		l.table = make(map[[16]byte]uint16)
	}
	l.table[host] = lid
}

// of returns the identifier of a host, 0 when it is not known.
func (l *lids) of(host [16]byte) uint16 {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.table[host]
}
