package xdp

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"maps"
	"math"
	"slices"

	"github.com/khamsin-io/khamsin/dataplane"
)

// lookAround finds out which of the followed channels nobody else listens to.
func (r *resolver) lookAround() {
	clear(r.counts)
	text, err := r.readMemberships()
	if err != nil || !r.scan(text) {
		return // until it works again all are as they were
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	now := *r.lonely.Load()
	var next map[dataplane.Channel]bool
	for ch, was := range now { // order-free: each is looked up by itself
		alone := r.counts[ch] <= r.joined[ch]
		if alone == was {
			continue
		}
		if next == nil {
			next = maps.Clone(now)
		}
		next[ch] = alone
	}
	if next != nil {
		r.lonely.Store(&next)
	}
}

// readMemberships returns the kernel's list of memberships, in a buffer that is used again.
func (r *resolver) readMemberships() ([]byte, error) {
	r.text = r.text[:0]
	for {
		if len(r.text) == cap(r.text) {
			r.text = slices.Grow(r.text, 4096)
		}
		n, err := r.members.ReadAt(r.text[len(r.text):cap(r.text)], int64(len(r.text)))
		r.text = r.text[:len(r.text)+n]
		if errors.Is(err, io.EOF) || err == nil && n == 0 {
			return r.text, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// scan counts the listeners of each channel in the kernel's list.
func (r *resolver) scan(text []byte) bool {
	if r.v6 {
		return scanMembershipsIPv6(text, r.ifIndex, r.counts)
	}
	return scanMemberships(text, r.ifIndex, r.counts)
}

// scanMembershipsIPv6 reads /proc/net/igmp6: a line for each group, with the interface's index and name, the address in
// hexadecimal, and how many sockets joined. It returns as scanMemberships does.
func scanMembershipsIPv6(text []byte, ifIndex int, counts map[dataplane.Channel]int) bool {
	for len(text) > 0 {
		var line []byte
		line, text, _ = bytes.Cut(text, newline)
		first, rest := nextField(line)
		_, rest = nextField(rest)
		address, rest := nextField(rest)
		third, _ := nextField(rest)
		var ip [16]byte
		index, ok := number(first, 10)
		users, ok2 := number(third, 10)
		n, err := hex.Decode(ip[:], address[:min(len(address), 2*len(ip))])
		if !ok || !ok2 || err != nil || n != len(ip) || len(address) != 2*len(ip) || users > math.MaxInt32 {
			return false
		}
		if ch := dataplane.ChannelOfIPv6(ip); index == uint64(ifIndex) && ch != 0 {
			counts[ch] = int(users)
		}
	}
	return true
}

// scanMemberships reads /proc/net/igmp: a line for each interface, beginning with its index, and behind it a line,
// beginning with a tab, for each group: its address in hexadecimal as it lies in memory, and how many sockets joined.
// It puts the numbers of an interface into counts, and returns false when the text is not like that.
func scanMemberships(text []byte, ifIndex int, counts map[dataplane.Channel]int) bool {
	_, text, _ = bytes.Cut(text, newline) // the heading
	mine := false
	for len(text) > 0 {
		var line []byte
		line, text, _ = bytes.Cut(text, newline)
		if len(line) == 0 {
			return false
		}
		first, rest := nextField(line)
		if line[0] != '\t' {
			index, ok := number(first, 10)
			if !ok {
				return false
			}
			mine = index == uint64(ifIndex)
			continue
		}
		second, _ := nextField(rest)
		group, ok := number(first, 16)
		users, ok2 := number(second, 10)
		if !ok || !ok2 || group > math.MaxUint32 || users > math.MaxInt32 {
			return false
		}
		if mine {
			var ip [4]byte
			binary.NativeEndian.PutUint32(ip[:], uint32(group))
			counts[dataplane.ChannelOfIPv4(ip)] = int(users)
		}
	}
	return true
}

var newline = []byte{'\n'} // immutable: never written

// nextField returns the first field of a line, and what stands behind it.
func nextField(line []byte) (field, rest []byte) {
	line = bytes.TrimLeft(line, " \t")
	end := bytes.IndexAny(line, " \t")
	if end < 0 {
		end = len(line)
	}
	return line[:end], line[end:]
}

// number reads a number; unlike package strconv it takes bytes.
func number(b []byte, base uint64) (n uint64, ok bool) {
	for _, c := range b {
		digit := uint64(99)
		switch {
		case c >= '0' && c <= '9':
			digit = uint64(c - '0')
		case c >= 'A' && c <= 'F':
			digit = uint64(c-'A') + 10
		}
		if digit >= base || n > math.MaxUint64/base-base {
			return 0, false
		}
		n = n*base + digit
	}
	return n, len(b) > 0
}
