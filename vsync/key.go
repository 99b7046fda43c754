package vsync

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/khamsin-io/khamsin/vsync/internal/seal"
)

// KeyLen is the length in bytes of keys of systems and groups.
const KeyLen = seal.KeyLen

// KeySource gives a key of KeyLen bytes when it is needed: once for a system's start, or a group's join. A failure ends
// that with its error, which should not show the key.
type KeySource func() ([]byte, error)

// StaticKey gives a key that the program has. It keeps a copy.
func StaticKey(key []byte) KeySource {
	own := append([]byte(nil), key...)
	return func() ([]byte, error) { return append([]byte(nil), own...), nil }
}

// HexKey gives a key that is written as 64 hexadecimal digits.
func HexKey(digits string) KeySource {
	return func() ([]byte, error) {
		b, err := hex.DecodeString(digits)
		if err != nil || len(b) != KeyLen {
			return nil, fmt.Errorf("not %d hexadecimal digits", 2*KeyLen)
		}
		return b, nil
	}
}

// KeyFile gives a key that stands in a file as 64 hexadecimal digits; white space around them does not count. A file
// that others than its owner and group may read is refused.
func KeyFile(path string) KeySource {
	return func() ([]byte, error) {
		info, err := os.Stat(path)
		if err != nil {
			return nil, fmt.Errorf("key file: %w", err)
		}
		if info.Mode().Perm()&0o007 != 0 {
			return nil, fmt.Errorf("key file %s: everybody may read or write it: chmod o= it", path)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("key file: %w", err)
		}
		key, err := HexKey(strings.TrimSpace(string(text)))()
		if err != nil {
			return nil, fmt.Errorf("key file %s: %w", path, err)
		}
		return key, nil
	}
}

// randomKey marks RandomKey, which means something else for each group.
var errRandomKey = errors.New("vsync: a random key is for groups") // immutable: an error

// RandomKey makes the member that creates a group draw its key. Joiners get it with the group's state, wrapped in a key
// that follows from the system's: so the system must have one (WithSystemKey), and whoever has that can join.
func RandomKey() KeySource { return func() ([]byte, error) { return nil, errRandomKey } }

// drawKey draws a key.
func drawKey() []byte {
	key := make([]byte, KeyLen)
	_, _ = rand.Read(key) // never fails: see crypto/rand
	return key
}

// keyOf asks a source for a key.
func keyOf(source KeySource) ([]byte, error) {
	key, err := source()
	if err != nil {
		return nil, err
	}
	if len(key) != KeyLen {
		return nil, fmt.Errorf("a key of %d bytes, want %d", len(key), KeyLen)
	}
	return key, nil
}
