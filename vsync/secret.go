package vsync

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
)

// A group with a key (WithGroupKey) enciphers what its messages carry, and its state:
//
//	incarnation of the sender, 8 bytes | counter, 8 bytes | AES-256-GCM of what is hidden, and its tag of 16 bytes
//
// The head of a message, which says its code, stays in the clear and is authenticated with it. Each sender has a key of
// its own, which follows from the group's, its name and the incarnation (HKDF-SHA256). The counter is the nonce. It
// belongs to the process and the name, not to one membership: who leaves and joins again goes on counting.
const (
	sealedHead = 8 + 8
	sealedMore = sealedHead + 16 // bytes that sealing adds
	nonceLen   = 12
)

// Kinds of what is sealed; the kind is authenticated.
const (
	sealedCast = iota
	sealedPeer
	sealedState
)

// errSealed is what a member says of what it cannot open.
var errSealed = fmt.Errorf("%w: not to be opened", ErrGroupKey) // immutable: an error

// secret is a group's key, and what follows from it.
type secret struct {
	name    string
	self    uint64
	counter *atomic.Uint64
	ready   chan struct{} // closed when there is a key

	once   sync.Once
	master []byte // what all keys follow from
	key    []byte // the key itself, for joiners of a group with a random one
	random bool
	own    cipher.AEAD

	mu      sync.RWMutex
	senders map[uint64]cipher.AEAD
	sealers sync.Pool // of *sealer
}

// sendersMax bounds the senders whose keys are remembered.
const sendersMax = 4096

func newSecret(name string, self uint64, counter *atomic.Uint64, random bool) *secret {
	return &secret{
		name: name, self: self, counter: counter, random: random, ready: make(chan struct{}),
		senders: map[uint64]cipher.AEAD{},
	}
}

// set gives the secret its key. The first one counts.
func (s *secret) set(key []byte) error {
	if len(key) != KeyLen {
		return fmt.Errorf("%w: %d bytes, want %d", ErrGroupKey, len(key), KeyLen)
	}
	var err error
	s.once.Do(func() {
		s.key = key
		if s.master, err = hkdf.Extract(sha256.New, key, []byte("khamsin group "+s.name)); err != nil {
			return
		}
		if s.own, err = s.aeadOf(s.self); err == nil {
			close(s.ready)
		}
	})
	return err
}

// has tells whether there is a key.
func (s *secret) has() bool {
	select {
	case <-s.ready:
		return true
	default:
		return false
	}
}

// derive returns a key for a purpose.
func (s *secret) derive(purpose string) ([]byte, error) {
	return hkdf.Expand(sha256.New, s.master, purpose, KeyLen)
}

// check returns what members with the same key have in common, and nobody can do anything with.
func (s *secret) check() (string, error) {
	b, err := s.derive("check")
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%x", b[:8]), nil
}

// aeadOf returns the cipher of a sender.
func (s *secret) aeadOf(incarnation uint64) (cipher.AEAD, error) {
	key, err := s.derive(fmt.Sprintf("messages of %x", incarnation))
	if err != nil {
		return nil, err
	}
	return newGCM(key)
}

func newGCM(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// seal appends a sealed form of plain to dst, which must have the room. What is in front of it is authenticated.
func (s *secret) seal(dst []byte, kind byte, head, plain []byte) []byte {
	counter := s.counter.Add(1)
	dst = binary.LittleEndian.AppendUint64(dst, s.self)
	dst = binary.LittleEndian.AppendUint64(dst, counter)
	w := s.scratch()
	defer s.sealers.Put(w)
	dst = s.own.Seal(dst, w.nonceOf(counter), plain, w.joined(kind, head))
	return dst
}

// open appends what a sealed form hides to dst. With from not zero, it must come from that incarnation.
func (s *secret) open(dst []byte, kind byte, from uint64, head, sealed []byte) ([]byte, bool) {
	if len(sealed) < sealedMore || !s.has() {
		return nil, false
	}
	incarnation, counter := binary.LittleEndian.Uint64(sealed), binary.LittleEndian.Uint64(sealed[8:])
	if from != 0 && incarnation != from {
		return nil, false
	}
	aead, known := s.sender(incarnation)
	if aead == nil {
		return nil, false
	}
	w := s.scratch()
	defer s.sealers.Put(w)
	plain, err := aead.Open(dst, w.nonceOf(counter), sealed[sealedHead:], w.joined(kind, head))
	if err != nil {
		return nil, false
	}
	if !known {
		s.remember(incarnation, aead)
	}
	return plain, true
}

// sender returns the cipher of a sender, and whether it is remembered.
func (s *secret) sender(incarnation uint64) (aead cipher.AEAD, known bool) {
	s.mu.RLock()
	aead, known = s.senders[incarnation]
	s.mu.RUnlock()
	if !known {
		aead, _ = s.aeadOf(incarnation) // fails for no key that there is
	}
	return aead, known
}

// remember keeps the cipher of a sender that a message was opened of.
func (s *secret) remember(incarnation uint64, aead cipher.AEAD) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.senders) >= sendersMax {
		clear(s.senders) // they are derived again
	}
	s.senders[incarnation] = aead
}

// sealer is what one call needs beside its arguments, so that it allocates nothing.
type sealer struct {
	nonce [nonceLen]byte
	text  []byte
}

func (s *secret) scratch() *sealer {
	if w, ok := s.sealers.Get().(*sealer); ok {
		return w
	}
	return new(sealer)
}

func (w *sealer) nonceOf(counter uint64) []byte {
	binary.LittleEndian.PutUint64(w.nonce[nonceLen-8:], counter)
	return w.nonce[:]
}

// joined returns what is authenticated beside the hidden part.
func (w *sealer) joined(kind byte, head []byte) []byte {
	w.text = append(append(w.text[:0], kind), head...)
	return w.text
}

// wrapKey returns a group's key for a joiner, wrapped in a key that follows from the system's.
func (g *Group) wrapKey() ([]byte, error) {
	aead, err := g.wrapper()
	if err != nil {
		return nil, err
	}
	nonce := make([]byte, nonceLen)
	_, _ = rand.Read(nonce) // never fails: see crypto/rand
	return aead.Seal(nonce, nonce, g.secret.key, []byte(g.name)), nil
}

// unwrapKey takes in what wrapKey returned elsewhere.
func (g *Group) unwrapKey(wrapped []byte) error {
	aead, err := g.wrapper()
	if err != nil {
		return err
	}
	if len(wrapped) < nonceLen {
		return errSealed
	}
	key, err := aead.Open(nil, wrapped[:nonceLen], wrapped[nonceLen:], []byte(g.name))
	if err != nil {
		return errSealed
	}
	return g.secret.set(key)
}

func (g *Group) wrapper() (cipher.AEAD, error) {
	secret, err := hkdf.Key(sha256.New, g.sys.key, nil, "khamsin keys of groups", KeyLen)
	if err != nil {
		return nil, err
	}
	return newGCM(secret)
}

// openSecret makes the group's secret, when it has a key, before it is joined.
func (g *Group) openSecret() error {
	source := g.settings.key
	if source == nil {
		return nil
	}
	key, err := source()
	random := errors.Is(err, errRandomKey)
	switch {
	case random && g.sys.key == nil:
		return fmt.Errorf("%w: RandomKey needs a system with a key, which wraps it for joiners", ErrGroupKey)
	case random:
	case err != nil:
		return fmt.Errorf("%w: %w", ErrGroupKey, err)
	}
	g.secret = newSecret(g.name, g.sys.self.Incarnation, g.sys.counterOf(g.name), random)
	if random {
		return nil // drawn or handed over when the group is joined
	}
	return g.secret.set(key)
}

// counterOf returns the counter of what this process seals for groups of a name.
func (s *System) counterOf(name string) *atomic.Uint64 {
	c, _ := s.counters.LoadOrStore(name, new(atomic.Uint64))
	return c.(*atomic.Uint64)
}

// keyLine returns the line by which members compare their keys, empty without one.
func (g *Group) keyLine() (string, error) {
	switch {
	case g.secret == nil:
		return "", nil
	case g.secret.random:
		return keyCode + "random\n", nil
	}
	check, err := g.secret.check()
	return keyCode + check + "\n", err
}

// keyCode is what the line begins with. No handler has this code.
const keyCode = "-1 key "

// DeriveKey returns a key of KeyLen bytes that follows from the group's, for a purpose of the application's own: all
// members get the same, nobody else. It fails with ErrGroupKey when the group has no key, or not yet.
func (g *Group) DeriveKey(purpose string) ([]byte, error) {
	if g.secret == nil || !g.secret.has() {
		return nil, g.fail("derive a key", ErrGroupKey)
	}
	return g.secret.derive("for " + purpose)
}
