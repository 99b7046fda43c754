package oob

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"net"
	"net/netip"

	"github.com/khamsin-io/khamsin/vsync"
)

// secret makes the keys of transfers.
type secret []byte

// keys returns what packets are sealed with: nil in a group and a system without keys.
func (s *Store) keys() (secret, error) {
	const purpose = "bulk objects"
	if key, err := s.group.DeriveKey(purpose); err == nil {
		return key, nil
	}
	key, err := s.group.System().DeriveKey(purpose + " of group " + s.group.Name())
	if errors.Is(err, vsync.ErrNoKey) {
		return nil, nil
	}
	return key, err
}

func (k secret) aead(info string) (cipher.AEAD, error) {
	key, err := hkdf.Key(sha256.New, k, nil, info, vsync.KeyLen)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// Control returns the cipher of probes and feedbacks.
func (k secret) Control() (cipher.AEAD, error) { return k.aead("control") }

// Data returns the cipher of the bytes of one sender, or one link, which has a salt of its own.
func (k secret) Data(salt []byte) (cipher.AEAD, error) { return k.aead("data " + string(salt)) }

func addrPort(a net.Addr) netip.AddrPort {
	if t, ok := a.(*net.TCPAddr); ok {
		return t.AddrPort()
	}
	return netip.AddrPort{}
}
