package bpf

import (
	"errors"
	"fmt"
	"sync"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Filter is a transport's socket filter. Until a group is admitted it lets only packets through that belong to none.
type Filter struct {
	mu     sync.Mutex
	objs   filterObjects
	closed bool
}

// OpenFilter loads the filter.
func OpenFilter() (*Filter, error) {
	f := new(Filter)
	if err := loadFilterObjects(&f.objs, nil); err != nil {
		return nil, explain("load the socket filter", err)
	}
	return f, nil
}

// Attach puts the filter on a socket, where it stays until the socket is closed. The socket must not receive
// super-packets (UDP_GRO): the filter would see only the first packet of each.
func (f *Filter) Attach(fd int) error {
	return f.with(func() error {
		return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ATTACH_BPF, f.objs.KhamsinFilter.FD())
	}, "attach")
}

// Admit lets packets of a group through.
func (f *Filter) Admit(group uint32) error {
	return f.with(func() error { return f.objs.Admitted.Put(group, uint8(1)) }, "admit")
}

// Revoke lets packets of a group through no more.
func (f *Filter) Revoke(group uint32) error {
	return f.with(func() error {
		err := f.objs.Admitted.Delete(group)
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			return nil
		}
		return err
	}, "revoke")
}

// Counts returns how many of our packets went through, and how many were dropped, on all sockets together.
func (f *Filter) Counts() (passed, dropped uint64, err error) {
	var sums [2]uint64
	err = f.with(func() error {
		for i := range sums {
			var each []uint64
			if err := f.objs.Filtered.Lookup(uint32(i), &each); err != nil {
				return err
			}
			for _, n := range each {
				sums[i] += n
			}
		}
		return nil
	}, "count")
	return sums[0], sums[1], err
}

func (f *Filter) with(fn func() error, what string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	err := ErrClosed
	if !f.closed {
		err = fn()
	}
	if err != nil {
		return fmt.Errorf("bpf: filter: %s: %w", what, err)
	}
	return nil
}

// Close lets go of the filter. Sockets keep it.
func (f *Filter) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil
	}
	f.closed = true
	return f.objs.Close()
}
