package chain

import (
	"crypto/cipher"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"time"
)

// link is one connection. With a cipher everything travels in records, each sealed with the next number as its nonce;
// the two directions have keys of their own.
type link struct {
	conn     net.Conn
	counters *Counters
	out, in  cipher.AEAD
	sent     uint64
	received uint64
	record   []byte // of what was received, the part that was not read
	memory   []byte
	sealed   []byte
	plain    []byte
	spare    []byte
}

// recordMax is the most bytes of a record.
const recordMax = headLen + frameMax*Unit + rangesMax*rangeLen + tagLen

func (l *link) cipher(k Keys, up, down [SaltLen]byte) (err error) {
	if k == nil {
		return nil
	}
	both := append(append([]byte{}, up[:]...), down[:]...)
	ends := [2]cipher.AEAD{}
	for i, way := range []string{"down", "up"} {
		if ends[i], err = k.Data(append(both[:len(both):len(both)], way...)); err != nil {
			return err
		}
	}
	l.out, l.in = ends[0], ends[1]
	return nil
}

// swap makes the link the downstream side's.
func (l *link) swap() { l.out, l.in = l.in, l.out }

func (l *link) writeFrame(first, n uint32, parts net.Buffers) error {
	var head [headLen]byte
	binary.LittleEndian.PutUint32(head[:], first)
	binary.LittleEndian.PutUint32(head[4:], n)
	return l.write(head[:], parts)
}

// write sends a head and parts.
func (l *link) write(head []byte, parts net.Buffers) error {
	if err := l.conn.SetWriteDeadline(time.Now().Add(silence)); err != nil {
		return err
	}
	if l.out != nil {
		l.plain = append(l.plain[:0], head...)
		for _, p := range parts {
			l.plain = append(l.plain, p...)
		}
		l.sealed = append(l.sealed[:0], 0, 0, 0, 0)
		l.sealed = l.out.Seal(l.sealed, nonce(l.sent), l.plain, nil)
		l.sent++
		binary.LittleEndian.PutUint32(l.sealed, uint32(len(l.sealed)-4))
		n, err := l.conn.Write(l.sealed)
		l.counters.SentBytes.Add(uint64(n))
		return err
	}
	all := append(net.Buffers{head}, parts...)
	n, err := all.WriteTo(l.conn)
	l.counters.SentBytes.Add(uint64(n))
	return err
}

func nonce(n uint64) []byte {
	return binary.LittleEndian.AppendUint64(make([]byte, nonceLen-8, nonceLen), n)
}

// read fills b, from the record that is open or from the connection.
func (l *link) read(b []byte) error {
	if l.in != nil {
		if len(l.record) < len(b) {
			return fmt.Errorf("%w: a record is too short", ErrForeign)
		}
		l.record = l.record[copy(b, l.record):]
		return nil
	}
	if err := l.conn.SetReadDeadline(time.Now().Add(silence)); err != nil {
		return err
	}
	n, err := io.ReadFull(l.conn, b)
	l.counters.ReceivedBytes.Add(uint64(n))
	return err
}

// begin opens the next record.
func (l *link) begin() error {
	if l.in == nil {
		return nil
	}
	if err := l.conn.SetReadDeadline(time.Now().Add(silence)); err != nil {
		return err
	}
	var size [4]byte
	if _, err := io.ReadFull(l.conn, size[:]); err != nil {
		return err
	}
	n := binary.LittleEndian.Uint32(size[:])
	if n < tagLen || n > recordMax {
		return fmt.Errorf("%w: a record of %d bytes", ErrForeign, n)
	}
	if cap(l.memory) < int(n) {
		l.memory = make([]byte, n)
	}
	l.memory = l.memory[:n]
	if _, err := io.ReadFull(l.conn, l.memory); err != nil {
		return err
	}
	l.counters.ReceivedBytes.Add(uint64(n))
	var err error
	if l.record, err = l.in.Open(l.memory[:0], nonce(l.received), l.memory, nil); err != nil {
		return fmt.Errorf("%w: a record is not sealed with the key", ErrForeign)
	}
	l.received++
	return nil
}

// end checks that a record was read whole.
func (l *link) end() error {
	if len(l.record) > 0 {
		return fmt.Errorf("%w: a record is too long", ErrForeign)
	}
	return nil
}

func (l *link) readHead() (first, n uint32, err error) {
	var b [headLen]byte
	if err = l.begin(); err == nil {
		err = l.read(b[:])
	}
	return binary.LittleEndian.Uint32(b[:]), binary.LittleEndian.Uint32(b[4:]), err
}

func (l *link) scratch(n int) []byte {
	if cap(l.spare) < n {
		l.spare = make([]byte, max(n, Unit))
	}
	return l.spare[:n]
}

// writeRanges tells the upstream side what is missing: nothing, when all is there.
func (l *link) writeRanges(ranges [][2]uint32) error {
	b := binary.LittleEndian.AppendUint32(nil, uint32(len(ranges)))
	for _, r := range ranges {
		b = binary.LittleEndian.AppendUint32(b, r[0])
		b = binary.LittleEndian.AppendUint32(b, r[1])
	}
	return l.write(b, nil)
}

func (l *link) readRanges(total uint32) ([][2]uint32, error) {
	if err := l.begin(); err != nil {
		return nil, err
	}
	var b [4]byte
	if err := l.read(b[:]); err != nil {
		return nil, err
	}
	n := binary.LittleEndian.Uint32(b[:])
	if n > rangesMax {
		return nil, fmt.Errorf("%w: %d ranges", ErrForeign, n)
	}
	body := make([]byte, n*rangeLen)
	if err := l.read(body); err != nil {
		return nil, err
	}
	ranges := make([][2]uint32, 0, n)
	for ; len(body) > 0; body = body[rangeLen:] {
		r := [2]uint32{binary.LittleEndian.Uint32(body), binary.LittleEndian.Uint32(body[4:])}
		if r[0] >= r[1] || r[1] > total {
			return nil, fmt.Errorf("%w: range %v of %d", ErrForeign, r, total)
		}
		ranges = append(ranges, r)
	}
	return ranges, l.end()
}
