//go:build !linux

package memory

import (
	"errors"
	"time"
)

var errLinux = errors.New("bulk objects need Linux") // immutable: an error

type area struct {
	data  []byte
	since time.Time
}

func (a *area) close() {}

func (s *source) close() {}

func (s *source) newArea(int64) (*area, error) { return nil, errLinux }

// New fails: bulk objects need Linux.
func New(string, Spares) (*Pool, error) { return nil, errLinux }

// Map fails likewise.
func Map(string) (*Block, error) { return nil, errLinux }

// WriteAt fails likewise.
func (b *Block) WriteAt([]byte, int64) error { return errLinux }

// Edit fails likewise.
func (b *Block) Edit() ([]byte, func(), error) { return nil, nil, errLinux }
