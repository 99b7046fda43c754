package oob

import (
	"encoding/hex"
	"fmt"
	"sync"
	"unicode/utf8"
	"unsafe"

	"github.com/khamsin-io/khamsin/oob/internal/catalog"
	"github.com/khamsin-io/khamsin/oob/internal/memory"
	"github.com/khamsin-io/khamsin/oob/internal/transfer"
)

// copied is the bytes of an object as this process has them, or is getting them. What is not said to be constant is
// guarded by Store.mu.
type copied struct {
	name  string
	size  uint64 // constant
	gen   uint64 // 0: not registered
	block *memory.Block
	item  transfer.Item
	held  bool // it is complete, and the catalogue says so
	refs  int  // handles, transfers, and the store

	partial     *transfer.Receiver // that brought a part of it, before its transfer was broken off
	partialItem int
	writer      *session // the last one that it arrived by

	edit    []byte // a view that the application may change
	endEdit func()
}

// Object is a handle of an object that this process holds, or has created. It keeps the bytes in memory until it is
// closed, even when the object is deleted. All methods may be called by any goroutine.
type Object struct {
	store *Store
	copy  *copied
	once  sync.Once
}

// Name returns the object's name.
func (o *Object) Name() string { return o.copy.name }

// Size returns the number of bytes.
func (o *Object) Size() int64 { return int64(o.copy.size) }

// Bytes returns the object's bytes, until Close: without a copy. They may be changed before the object is registered,
// and not afterwards: see Edit. Once this process has called Edit they are the bytes that it returned.
func (o *Object) Bytes() []byte {
	o.store.mu.Lock()
	defer o.store.mu.Unlock()
	if o.copy.edit != nil {
		return o.copy.edit
	}
	return o.copy.item.Data
}

// Edit returns the object's bytes so that they can be changed, until Close. Changes stay in this process; the next
// Replicate that this process calls makes copies of the changed bytes. The pages that are changed take memory of their
// own.
func (o *Object) Edit() ([]byte, error) {
	s, c := o.store, o.copy
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.edit != nil || c.gen == 0 || c.size == 0 {
		if c.edit != nil {
			return c.edit, nil
		}
		return c.item.Data, nil
	}
	data, end, err := c.block.Edit()
	if err != nil {
		return nil, named(c.name, err)
	}
	c.edit, c.endEdit = data, end
	return data, nil
}

// Digest returns the digest of the bytes as they were registered or arrived, in hexadecimal: equal digests mean equal
// bytes, unless somebody tries to deceive. It is empty before the object is registered.
func (o *Object) Digest() string {
	o.store.mu.Lock()
	defer o.store.mu.Unlock()
	if o.copy.item.List == nil {
		return ""
	}
	return digestText(o.copy.item.Digest)
}

// Close ends the use of the bytes here. The object stays.
func (o *Object) Close() error {
	o.once.Do(func() {
		o.store.mu.Lock()
		defer o.store.mu.Unlock()
		o.store.release(o.copy)
	})
	return nil
}

// handle returns a new handle. Store.mu is held.
func (s *Store) handle(c *copied) *Object {
	c.refs++
	return &Object{store: s, copy: c}
}

// release ends one use of a copy. Store.mu is held.
func (s *Store) release(c *copied) {
	if c.refs--; c.refs > 0 {
		return
	}
	if c.endEdit != nil {
		c.endEdit()
	}
	b := c.block
	c.block, c.edit, c.item.Data = nil, nil, nil
	switch {
	case b == nil:
	case s.closed:
		b.Free()
	default: // handlers wait for what the caller has locked
		if end := b.Retire(); end != nil {
			s.all.Go(func() { s.heavy(int64(c.size), func() error { end(); return nil }) })
		}
	}
}

// heavyBytes is from how many bytes on work on them is left to a thread that gives way.
const heavyBytes = 256 << 10

// heavy does work on so many bytes.
func (s *Store) heavy(bytes int64, work func() error) error {
	if bytes < heavyBytes {
		return work()
	}
	return s.settings.do(work)
}

// sum returns the digests of bytes.
func (s *Store) sum(b []byte) (list []byte, digest catalog.Digest) {
	_ = s.heavy(int64(len(b)), func() error { // returns what the function does, which is nil
		list, digest = transfer.Sum(b)
		return nil
	})
	return list, digest
}

// Digest returns the digest of bytes, in hexadecimal, as Object.Digest does of an object's.
func Digest(b []byte) string {
	_, d := transfer.Sum(b)
	return digestText(d)
}

func digestText(d catalog.Digest) string { return hex.EncodeToString(d[:]) }

// View returns the bytes of an object as values of a fixed size: numbers, or arrays and structs of them, without
// pointers. They are in the byte order of the machine that wrote them. Bytes behind the last whole value are left out.
func View[T Fixed](b []byte) ([]T, error) {
	var zero T
	size, align := unsafe.Sizeof(zero), unsafe.Alignof(zero)
	p := unsafe.SliceData(b)
	if uintptr(unsafe.Pointer(p))%align != 0 {
		return nil, fmt.Errorf("the bytes begin at an address that is no multiple of %d, which %T needs", align, zero)
	}
	return unsafe.Slice((*T)(unsafe.Pointer(p)), uintptr(len(b))/size), nil
}

// Fixed are the types that View knows.
type Fixed interface {
	~int8 | ~int16 | ~int32 | ~int64 | ~uint8 | ~uint16 | ~uint32 | ~uint64 |
		~float32 | ~float64 | ~complex64 | ~complex128
}

// CheckName tells what is wrong with a name: it must be legal as the name of a file everywhere.
func CheckName(name string) error {
	fail := func(why string) error { return fmt.Errorf("%w: %q %s", ErrName, name, why) }
	switch {
	case name == "":
		return fail("is empty")
	case len(name) > catalog.NameMax:
		return fail(fmt.Sprintf("has more than %d bytes", catalog.NameMax))
	case name == "." || name == "..":
		return fail("means a directory")
	case !utf8.ValidString(name):
		return fail("is not UTF-8")
	case name[len(name)-1] == '.' || name[len(name)-1] == ' ':
		return fail("ends with a dot or a space")
	}
	for _, r := range name {
		switch {
		case r < ' ' || r == 0x7f:
			return fail("has a control character")
		case r == '/' || r == '\\' || r == ':' || r == '*' || r == '?' || r == '"' || r == '<' || r == '>' || r == '|':
			return fail(fmt.Sprintf("has %q, which no name of a file can have everywhere", r))
		}
	}
	return nil
}
