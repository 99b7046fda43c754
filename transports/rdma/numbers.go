package rdma

import "github.com/khamsin-io/khamsin/dataplane"

// streamsMax is how many streams are remembered. With more, all are forgotten: then losses just then go uncounted.
const streamsMax = 1 << 14

// stream is what is numbered: the datagrams of a sender to one process or channel. The sender knows it by its
// destination, the receiver by its source.
type stream struct {
	channel dataplane.Channel
	peer    dataplane.Endpoint
}

// numbers numbers the datagrams of streams, so that a receiver can tell how many are missing: a device that has no
// buffer for a datagram drops it and tells nobody.
type numbers struct {
	table map[stream]*uint32 // the next number
	last  stream             // consecutive datagrams are often of one stream
	at    *uint32
}

func (n *numbers) init() { n.table = make(map[stream]*uint32) }

// forget begins anew.
func (n *numbers) forget() {
	clear(n.table)
	n.at = nil
}

// find returns the next number of a stream; known is false when there was none.
func (n *numbers) find(s stream) (at *uint32, known bool) {
	if n.at != nil && n.last == s {
		return n.at, true
	}
	at, known = n.table[s]
	if !known {
		if len(n.table) >= streamsMax {
			n.forget()
		}
		at = new(uint32)
		n.table[s] = at
	}
	n.last, n.at = s, at
	return at, known
}

// next returns the number of the next datagram to send.
func (n *numbers) next(s stream) uint32 {
	at, _ := n.find(s)
	number := *at
	*at++
	return number
}

// missing returns how many datagrams of a stream have not come before the one with a number. A number that lies behind
// is of a datagram that was overtaken, or of a sender that began anew.
func (n *numbers) missing(s stream, number uint32) uint64 {
	at, known := n.find(s)
	gap := number - *at
	*at = number + 1
	if !known || gap >= 1<<31 {
		return 0
	}
	return uint64(gap)
}
