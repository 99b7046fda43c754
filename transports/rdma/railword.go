package rdma

import "encoding/binary"

// railWord is what two transports tell each other of a rail. The side that sends frames asks, and ends, by a datagram
// without a number to the other's queue pair, all that it knows of it; the side that receives them answers, and ends,
// to an ordinary UDP socket, so that a process need not be in Receive to learn it.
//
//	0     magic
//	4     kind; the three bytes behind it are zero
//	8     attempt: which one of the asker's rails
//	16    number of the queue pair
//	20    number of its first packet
//	24    longest frame that the teller takes
//	28    UDP port for the answer; the two bytes behind it are zero
type railWord struct {
	kind    uint8
	attempt uint64
	number  uint32
	psn     uint32
	large   uint32
	port    uint16 // of an ask only
}

const (
	railMagic     = 0x4b52574c
	railWordBytes = 32
)

// Kinds of words.
const (
	railAsk    = 1 // a sender has a queue pair, and wants one to connect it to
	railAnswer = 2 // here it is
	railEnd    = 3 // there is none, or no more
)

func (w *railWord) put(b []byte) {
	clear(b[:railWordBytes])
	binary.BigEndian.PutUint32(b, railMagic)
	b[4] = w.kind
	binary.BigEndian.PutUint64(b[8:], w.attempt)
	binary.BigEndian.PutUint32(b[16:], w.number)
	binary.BigEndian.PutUint32(b[20:], w.psn)
	binary.BigEndian.PutUint32(b[24:], w.large)
	binary.BigEndian.PutUint16(b[28:], w.port)
}

// parseRailWord reads a datagram's payload; false when it is no word.
func parseRailWord(b []byte) (w railWord, ok bool) {
	if len(b) != railWordBytes || binary.BigEndian.Uint32(b) != railMagic || b[5]|b[6]|b[7] != 0 ||
		b[30]|b[31] != 0 {
		return railWord{}, false
	}
	w = railWord{
		kind:    b[4],
		attempt: binary.BigEndian.Uint64(b[8:]),
		number:  binary.BigEndian.Uint32(b[16:]),
		psn:     binary.BigEndian.Uint32(b[20:]),
		large:   binary.BigEndian.Uint32(b[24:]),
		port:    binary.BigEndian.Uint16(b[28:]),
	}
	switch w.kind {
	case railAsk, railAnswer:
		ok = w.number > 0 && w.number < qpNumberMax && w.psn <= psnMax && w.large > 0 && w.large <= LargeMax &&
			w.port > 0 == (w.kind == railAsk)
	case railEnd:
		ok = w.number|w.psn|w.large|uint32(w.port) == 0
	}
	if !ok {
		return railWord{}, false
	}
	return w, true
}
