// Package seal authenticates packets with a key that all processes of a system have. A sealed packet carries, between
// its header and its payload,
//
//	incarnation of its origin, 8 bytes | counter, 8 bytes | tag, 16 bytes
//
// The tag is AES-256-GMAC over the whole packet, with the checksum and the tag itself taken as zeros. Each origin has a
// key of its own, which follows from the system's and its incarnation (HKDF-SHA256), so that its counter is a nonce
// that never comes twice: an incarnation is drawn anew for every start of a process. A packet that others pass on, or
// send again, keeps the tag of its origin.
//
// A packet that may be sent again keeps its counter, and the protocols know by its number that they have had it. All
// others pass once: a window behind the highest counter of each origin refuses them when they come again.
//
// A ring belongs to one goroutine.
package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/khamsin-io/khamsin/dataplane/wire"
)

// Sizes in bytes.
const (
	KeyLen   = 32
	Overhead = 8 + 8 + tagLen // of a packet

	tagLen   = 16
	nonceLen = 12
	originAt = wire.HeaderLen
	countAt  = originAt + 8
	tagAt    = countAt + 8
)

// Limits of a ring.
const (
	originsMax = 4096 // that are remembered; the one that was heard longest ago goes first
	windowLen  = 4096 // counters behind the highest in which a packet may still come
)

// Errors of Open.
var (
	ErrUnsigned = errors.New("seal: packet without a tag")
	ErrForged   = errors.New("seal: the tag is not that of this system's key")
	ErrReplayed = errors.New("seal: packet came before, or is too old to tell")
)

// Ring seals the packets of one process and opens those of all.
type Ring struct {
	secret  []byte
	own     cipher.AEAD
	self    uint64
	counter uint64
	origins map[uint64]*origin
	clock   uint64 // packets opened

	nonce [nonceLen]byte
	tag   [tagLen]byte
}

// origin is a process that packets come from.
type origin struct {
	aead    cipher.AEAD
	heard   uint64 // when, by the ring's clock
	highest uint64 // counter; 0: none yet
	seen    [windowLen / 64]uint64
}

// NewRing returns a ring for a process of the system that has the key, of KeyLen bytes.
func NewRing(key []byte, incarnation uint64) (*Ring, error) {
	if len(key) != KeyLen {
		return nil, fmt.Errorf("seal: a key of %d bytes, want %d", len(key), KeyLen)
	}
	r := &Ring{self: incarnation, origins: map[uint64]*origin{}}
	var err error
	if r.secret, err = hkdf.Extract(sha256.New, key, []byte("khamsin system")); err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	r.own = r.keyOf(incarnation)
	return r, nil
}

// keyOf returns the cipher of an origin.
func (r *Ring) keyOf(incarnation uint64) cipher.AEAD {
	info := binary.LittleEndian.AppendUint64([]byte("packets of "), incarnation)
	key, err := hkdf.Expand(sha256.New, r.secret, string(info), KeyLen)
	if err != nil {
		panic(fmt.Sprintf("seal: %v", err)) // the length is fixed, and allowed
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(fmt.Sprintf("seal: %v", err)) // likewise
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic(fmt.Sprintf("seal: %v", err)) // AES has the block size of GCM
	}
	return aead
}

// Overhead returns the bytes that stand between header and payload.
func (r *Ring) Overhead() int { return Overhead }

// Seal marks a packet as signed and writes its tag. Nothing of it but the checksum may change afterwards.
func (r *Ring) Seal(packet []byte) {
	r.counter++
	packet[wire.KindOffset] |= wire.SignedBit
	binary.LittleEndian.PutUint32(packet[wire.CRCOffset:], 0)
	binary.LittleEndian.PutUint64(packet[originAt:], r.self)
	binary.LittleEndian.PutUint64(packet[countAt:], r.counter)
	clear(packet[tagAt : tagAt+tagLen])
	tag := r.own.Seal(r.tag[:0], r.nonceOf(r.counter), nil, packet)
	copy(packet[tagAt:], tag)
}

// nonceOf returns the nonce of a counter, valid until the next call.
func (r *Ring) nonceOf(counter uint64) []byte {
	binary.LittleEndian.PutUint64(r.nonce[nonceLen-8:], counter)
	return r.nonce[:]
}

// Open checks a packet whose header was read. Its bytes change meanwhile, and are as before when it returns. With
// again, the packet may have come before.
func (r *Ring) Open(packet []byte, signed, again bool) error {
	if !signed || len(packet) < wire.HeaderLen+Overhead {
		return ErrUnsigned
	}
	incarnation := binary.LittleEndian.Uint64(packet[originAt:])
	counter := binary.LittleEndian.Uint64(packet[countAt:])
	o := r.origins[incarnation]
	fresh := o == nil
	if fresh {
		o = &origin{aead: r.keyOf(incarnation)}
	}
	if !r.genuine(o, packet, counter) {
		return ErrForged
	}
	r.clock++
	if fresh {
		r.remember(incarnation, o)
	}
	o.heard = r.clock
	if !o.first(counter) && !again {
		return ErrReplayed
	}
	return nil
}

// genuine verifies the tag.
func (r *Ring) genuine(o *origin, packet []byte, counter uint64) bool {
	crc := binary.LittleEndian.Uint32(packet[wire.CRCOffset:])
	copy(r.tag[:], packet[tagAt:])
	binary.LittleEndian.PutUint32(packet[wire.CRCOffset:], 0)
	clear(packet[tagAt : tagAt+tagLen])
	_, err := o.aead.Open(nil, r.nonceOf(counter), r.tag[:], packet)
	binary.LittleEndian.PutUint32(packet[wire.CRCOffset:], crc)
	copy(packet[tagAt:], r.tag[:])
	return err == nil
}

// remember keeps an origin that sent a genuine packet.
func (r *Ring) remember(incarnation uint64, o *origin) {
	if len(r.origins) >= originsMax {
		var eldest uint64
		at := r.clock
		for i, x := range r.origins { // order-free: the clock is another at each
			if x.heard < at {
				eldest, at = i, x.heard
			}
		}
		delete(r.origins, eldest)
	}
	r.origins[incarnation] = o
}

// first notes a counter and tells whether it is certain that it did not come before.
func (o *origin) first(counter uint64) bool {
	switch {
	case counter == 0:
		return false
	case counter > o.highest:
		for c := max(o.highest, counter-min(counter, windowLen)) + 1; c < counter; c++ {
			o.bit(c, false)
		}
		o.highest = counter
	case o.highest-counter >= windowLen:
		return false
	case o.has(counter):
		return false
	}
	o.bit(counter, true)
	return true
}

func (o *origin) has(counter uint64) bool {
	return o.seen[counter/64%uint64(len(o.seen))]&(1<<(counter%64)) != 0
}

func (o *origin) bit(counter uint64, on bool) {
	word, mask := &o.seen[counter/64%uint64(len(o.seen))], uint64(1)<<(counter%64)
	if *word &^= mask; on {
		*word |= mask
	}
}
