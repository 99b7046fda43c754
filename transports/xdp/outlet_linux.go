package xdp

import (
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/counters"
)

// outletBuffer is how many bytes of packets of an outlet, as the kernel counts them, may be under way.
const outletBuffer = 2 << 20

// How often, and for how long, an outlet waits for room.
const (
	roomTries = 40
	roomPause = 50 * time.Microsecond
)

// outlet sends packets of one flow.
type outlet struct {
	bulk    *bulk
	origin  origin
	to      target
	max     int // bytes of a payload
	headers int
	reaper  func()
	calls   counters.Counter

	mu     sync.Mutex // guards what follows
	socket *socket
	closed bool
	chunks [MTUMax/umemChunkMin + 2]uint32 // of the packet that is put
}

// Put is dataplane.Outlet's.
func (o *outlet) Put(head, payload []byte) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	size := o.headers + len(head) + len(payload)
	if o.closed || size > o.max+o.headers || len(head) > umemChunkMin-o.headers {
		return false
	}
	n := o.take(size)
	if n == 0 {
		return false
	}
	first := o.memory(o.chunks[0])
	o.origin.writeParts(first, &o.to, head, payload)
	at := o.headers + copy(first[o.headers:], head)
	at += copy(first[at:], payload)
	for i, rest := 1, payload[at-o.headers-len(head):]; len(rest) > 0; i++ {
		rest = rest[copy(o.memory(o.chunks[i]), rest):]
	}
	o.describe(size)
	return true
}

// memory returns the bytes of a chunk.
func (o *outlet) memory(chunk uint32) []byte {
	b := o.bulk
	return b.arena.Memory()[int(chunk)<<b.shift:][:b.chunkSize]
}

// take takes chunks for a frame of size bytes, and returns how many; 0 when there is no room.
func (o *outlet) take(size int) int {
	b := o.bulk
	n, descs := (size+b.chunkSize-1)/b.chunkSize, o.descriptors(size)
	if o.socket.tx.roomFor(descs) < descs {
		return 0
	}
	b.main.mu.Lock()
	defer b.main.mu.Unlock()
	if len(b.free) < n {
		b.main.collect(b)
	}
	if len(b.free) < n {
		return 0
	}
	rest := size
	for i := range n {
		chunk := b.free[len(b.free)-1]
		b.free = b.free[:len(b.free)-1]
		part := min(rest, b.chunkSize)
		o.chunks[i], b.left[chunk] = chunk, uint8((part+b.umemChunk-1)/b.umemChunk)
		rest -= part
	}
	return n
}

// descriptors returns how many a frame takes: one for each UMEM chunk that it touches.
func (o *outlet) descriptors(size int) int {
	b := o.bulk
	whole, rest := size/b.chunkSize, size%b.chunkSize
	return whole*(b.chunkSize/b.umemChunk) + (rest+b.umemChunk-1)/b.umemChunk
}

// describe pushes the descriptors of a frame that lies in the chunks taken.
func (o *outlet) describe(size int) {
	b := o.bulk
	for i := 0; size > 0; i++ {
		for off := 0; off < b.chunkSize && size > 0; off += b.umemChunk {
			part := min(size, b.umemChunk)
			d := unix.XDPDesc{Addr: uint64(o.chunks[i])<<b.shift + uint64(off), Len: uint32(part)}
			if size -= part; size > 0 {
				d.Options = descContinued
			}
			o.socket.tx.push(d)
		}
	}
}

// Flush is dataplane.Outlet's.
func (o *outlet) Flush() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return dataplane.ErrClosed
	}
	if errno := o.socket.kick(o.reaper, &o.calls); errno != 0 {
		return fmt.Errorf("xdp: send: %w", errno)
	}
	for range roomTries {
		if o.reap(); o.hasRoom() {
			break
		}
		time.Sleep(roomPause) // a driver that works without copies sends by itself
	}
	return nil
}

// hasRoom tells whether the largest packet can be put.
func (o *outlet) hasRoom() bool {
	size := o.max + o.headers
	if descs := o.descriptors(size); o.socket.tx.roomFor(descs) < descs {
		return false
	}
	o.bulk.main.mu.Lock()
	defer o.bulk.main.mu.Unlock()
	return len(o.bulk.free)*o.bulk.chunkSize >= size
}

// reap takes in frames that have been sent.
func (o *outlet) reap() {
	o.bulk.main.mu.Lock()
	defer o.bulk.main.mu.Unlock()
	o.bulk.main.collect(o.bulk)
}

// Close is dataplane.Outlet's.
func (o *outlet) Close() error {
	return o.bulk.leave(func() { delete(o.bulk.outlets, o) }, o.shut)
}

// shut closes the socket, and takes back what it has not sent.
func (o *outlet) shut() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return nil
	}
	o.closed = true
	err := o.socket.closeFile()
	tx, b := o.socket.tx, o.bulk
	b.main.mu.Lock()
	tx.idle() // looks afresh
	for at := tx.theirs; at != tx.ours; at++ {
		b.sent(tx.slots[at&tx.mask].Addr)
	}
	b.main.mu.Unlock()
	if again := o.socket.unmap(); err == nil {
		err = again
	}
	return err
}
