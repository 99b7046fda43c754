// Package cast moves the packets of a transfer by IP multicast: straight from the mapped objects of the sender to the
// network, and from the network to the mapped objects of the receivers. Which packets those are is package transfer's
// business.
package cast

import (
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"io"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/oob/internal/transfer"
)

// TagLen is by how much a sealed segment is longer.
const TagLen = 16

const nonceLen = 12

// Path is where the packets go.
type Path struct {
	IP        netip.Addr // of this process
	Interface int        // its number
	Group     netip.Addr // the multicast address
	Port      uint16     // the group's
	TTL       int
	Loop      bool // there are receivers on this host
}

// Past says how multicasts go past the kernel's network stack. The zero value: they go by UDP.
type Past struct {
	Bypass  dataplane.Bypass
	Trouble func(err error)                            // is told why some do not
	Hear    func(to netip.AddrPort) (io.Closer, error) // lets the group's packets come to its socket, if it is not nil
}

// Keys make ciphers. Nil: packets travel open.
type Keys interface {
	// Control returns the cipher of probes and feedbacks, whose nonces are random.
	Control() (cipher.AEAD, error)
	// Data returns the cipher of the segments of a sender with a salt, whose nonces count.
	Data(salt []byte) (cipher.AEAD, error)
}

// SaltLen is the length of the salt of a sender.
const SaltLen = 16

// Counters count what the transfers of a process do.
type Counters struct {
	SentPackets, SentBytes         atomic.Uint64 // of data and parity
	ReceivedPackets, ReceivedBytes atomic.Uint64
	Moved                          atomic.Uint64 // segments that did not arrive where they belong and were copied
	Repaired, Parity, Single       atomic.Uint64 // segments sent again, parity segments, those of both to one receiver
	Probes, Feedbacks              atomic.Uint64
	Corrupt                        atomic.Uint64 // chunks that were not what was sent
	Malformed                      atomic.Uint64 // packets that are none, or not sealed as they must be
	Stale                          atomic.Uint64 // packets of another transfer, or for another sender
	Lost                           atomic.Uint64 // packets that did not arrive

	PastSent, PastReceived atomic.Uint64 // packets that went past the stack
	PastRefused            atomic.Uint64 // sendings and receivings that could not do so, or not to the end
}

// Receiver is a receiver as a sender knows it.
type Receiver struct {
	ID uint64
	IP netip.Addr
}

// Sending is a transfer that is being sent.
type Sending struct {
	Path      Path
	ID        uint32
	Layout    *transfer.Layout
	Items     []transfer.Item
	Receivers []Receiver
	Keys      Keys
	Counters  *Counters
	Stop      <-chan struct{} // ends it
	Past      Past

	// Segments is how many have been sent at least once.
	Segments atomic.Uint32

	mu   sync.Mutex
	gone []uint64
}

// Gone tells that a receiver needs nothing any more.
func (s *Sending) Gone(id uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gone = append(s.gone, id)
}

func (s *Sending) takeGone() []uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.gone
	s.gone = nil
	return g
}

// Receiving is a transfer that is being received.
type Receiving struct {
	Path     Path
	ID       uint32
	Receiver *transfer.Receiver
	Self     uint64     // this process's identity
	Source   netip.Addr // where the packets come from
	Direct   bool       // bytes are received right where they belong; else Write puts them there
	Write    func(item int, b []byte, off int64) error
	Keys     Keys
	Counters *Counters
	Stop     <-chan struct{}
	Past     Past
	Loss     float64        // share of the packets that are thrown away, for tests and measurements
	Verified func(item int) // called when an object is complete

	// Segments is how many have arrived.
	Segments atomic.Uint32
}

// errStopped ends a transfer that was stopped.
var errStopped = errors.New("stopped") // immutable: an error

// Stopped tells whether an error of Run means that Stop was closed.
func Stopped(err error) bool { return errors.Is(err, errStopped) }

func stopped(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

// seal appends a control packet's text to its head: as it is, or sealed with a nonce in front.
func seal(aead cipher.AEAD, head, text []byte) []byte {
	if aead == nil {
		return append(head, text...)
	}
	nonce := make([]byte, nonceLen)
	_, _ = rand.Read(nonce) // never fails: see crypto/rand
	aad := head[:len(head):len(head)]
	return aead.Seal(append(head, nonce...), nonce, text, aad)
}

// open returns the text of a control packet.
func open(aead cipher.AEAD, packet []byte) ([]byte, bool) {
	head, rest := packet[:transfer.HeadLen], packet[transfer.HeadLen:]
	if aead == nil {
		return rest, true
	}
	if len(rest) < nonceLen {
		return nil, false
	}
	text, err := aead.Open(nil, rest[:nonceLen], rest[nonceLen:], head)
	return text, err == nil
}

// nonceOf returns the nonce of a data packet: its number, which a sender uses once.
func nonceOf(b *[nonceLen]byte, number uint32) []byte {
	b[0], b[1], b[2], b[3] = byte(number), byte(number>>8), byte(number>>16), byte(number>>24)
	return b[:]
}

// move is a packet that is not where it belongs.
type move struct {
	head transfer.Head
	data []byte
	from netip.AddrPort
}
