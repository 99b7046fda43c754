package flow

import (
	"bytes"
	"encoding/binary"
	"testing"

	"pgregory.net/rapid"

	"github.com/khamsin-io/khamsin/dataplane/frame"
	"github.com/khamsin-io/khamsin/dataplane/wire"
	"github.com/khamsin-io/khamsin/vsync/core"
	"github.com/khamsin-io/khamsin/vsync/internal/pdu"
)

const mtu = 256

// tester is what *testing.T and *rapid.T have in common.
type tester interface {
	Fatalf(string, ...any)
	Fatal(...any)
}

func newOutbox(t tester, chunks int) *pdu.Outbox {
	arena, err := frame.New(frame.Config{ChunkSize: 1024, TxChunks: chunks})
	if err != nil {
		t.Fatal(err)
	}
	return pdu.NewOutbox(arena, mtu)
}

func closeOutbox(t tester, out *pdu.Outbox) {
	if err := out.Arena().Close(); err != nil {
		t.Fatal(err)
	}
}

// unpacked is a message as the receiver sees it.
type unpacked struct {
	flavour core.Flavour
	data    []byte
}

// unpack takes everything that waits and puts the messages together.
func unpack(t tester, p *Packer, out *pdu.Outbox) (list []unpacked) {
	var partial []byte
	left, length := -1, 0
	for p.Len() > 0 {
		front, u := p.Front(), p.Take()
		if front != u || !pdu.ValidFlags(u.Flags) || int(u.Frame.Len) > mtu {
			t.Fatalf("unit %+v, front %+v", u, front)
		}
		b := out.Arena().Bytes(u.Frame)[wire.HeaderLen:]
		if u.Flags&pdu.FlagFragment == 0 {
			if left >= 0 {
				t.Fatalf("a whole message between the pieces of another")
			}
			for len(b) > 0 {
				n, k := binary.Uvarint(b)
				list = append(list, unpacked{pdu.FlavourOf(u.Flags), bytes.Clone(b[k : k+int(n)])})
				b = b[k+int(n):]
			}
		} else {
			if u.Flags&pdu.FlagFirst != 0 {
				length = int(u.Frame.Len)
				n, k := binary.Uvarint(b)
				left, b, partial = int(n), b[k:], nil
			}
			if int(u.Frame.Len) != length {
				t.Fatalf("pieces of %d and %d bytes", length, u.Frame.Len)
			}
			if extra := len(b) - left; extra > 0 && u.Flags&pdu.FlagMore == 0 {
				b = b[:left]
			}
			partial = append(partial, b...)
			left -= len(b)
			if (left == 0) != (u.Flags&pdu.FlagMore == 0) {
				t.Fatalf("%d bytes left, flags %x", left, u.Flags)
			}
			if left == 0 {
				list = append(list, unpacked{pdu.FlavourOf(u.Flags), partial})
				left = -1
			}
		}
		out.Arena().Tx().Release(u.Frame)
	}
	return list
}

// Whatever is queued comes out as it went in, in order, packed and in pieces, and within the bound.
func TestPacker(t *testing.T) {
	// rows: MC-01
	rapid.Check(t, func(t *rapid.T) {
		out := newOutbox(t, 64)
		limit := rapid.IntRange(0, 2000).Draw(t, "limit")
		p := New(out, limit)
		var want []unpacked
		var got []unpacked
		for range rapid.IntRange(0, 30).Draw(t, "steps") {
			if rapid.IntRange(0, 5).Draw(t, "step") == 0 {
				got = append(got, unpack(t, p, out)...)
				continue
			}
			f := core.Flavour(rapid.IntRange(0, 4).Draw(t, "flavour"))
			msg := bytes.Repeat([]byte{byte(len(want))}, rapid.IntRange(0, 700).Draw(t, "length"))
			before, bytesBefore := p.Len(), p.Bytes()
			taken := p.Append(f, msg)
			if fits := before == 0 || bytesBefore+len(msg) <= limit; taken && !fits {
				t.Fatalf("%d bytes taken, %d wait, limit %d", len(msg), bytesBefore, limit)
			} else if !taken && fits && out.Starved == 0 {
				t.Fatalf("%d bytes refused, %d wait in %d units, limit %d", len(msg), bytesBefore, before, limit)
			}
			if taken {
				want = append(want, unpacked{f, msg})
			} else if p.Len() != before || p.Bytes() != bytesBefore {
				t.Fatalf("a refused message left %d units where %d were", p.Len(), before)
			}
			out.Starved = 0
		}
		got = append(got, unpack(t, p, out)...)
		if len(got) != len(want) || p.Bytes() != 0 || p.Added() != p.Taken() {
			t.Fatalf("%d messages of %d, %d bytes left, %d units added, %d taken", len(got), len(want), p.Bytes(),
				p.Added(), p.Taken())
		}
		for i := range want {
			if got[i].flavour != want[i].flavour || !bytes.Equal(got[i].data, want[i].data) {
				t.Fatalf("message %d: %v of %d bytes, want %v of %d", i, got[i].flavour, len(got[i].data),
					want[i].flavour, len(want[i].data))
			}
		}
		closeOutbox(t, out)
	})
}

// Messages of one flavour that wait together share packets; another flavour begins a new one.
func TestPacking(t *testing.T) {
	out := newOutbox(t, 16)
	defer closeOutbox(t, out)
	p := New(out, 1<<20)
	for range 10 {
		p.Append(core.FIFO, make([]byte, 10))
	}
	if p.Len() != 1 {
		t.Errorf("10 messages of 10 bytes in %d packets", p.Len())
	}
	p.Append(core.Total, make([]byte, 10))
	p.Append(core.FIFO, make([]byte, 10))
	if p.Len() != 3 {
		t.Errorf("three runs of flavours in %d packets", p.Len())
	}
	p.Append(core.FIFO, make([]byte, 1000))
	p.Append(core.FIFO, make([]byte, 10)) // not behind the last piece
	if want := 3 + 5 + 1; p.Len() != want {
		t.Errorf("%d packets, want %d", p.Len(), want)
	}
	p.Release()
	if p.Len() != 0 || p.Bytes() != 0 {
		t.Errorf("%d units after Release", p.Len())
	}
}

// A message is taken whole or not at all: when the frames run out in the middle, what it got goes back.
func TestOutOfFrames(t *testing.T) {
	out := newOutbox(t, 3)
	defer closeOutbox(t, out)
	p := New(out, 1<<20)
	if !p.Append(core.FIFO, []byte("a")) || p.Append(core.FIFO, make([]byte, 1000)) {
		t.Fatal("a message of five pieces was taken with two frames free")
	}
	if p.Len() != 1 || p.Added() != 1 || p.Bytes() != 1 {
		t.Errorf("%d units, %d added, %d bytes", p.Len(), p.Added(), p.Bytes())
	}
	if !p.Append(core.Total, make([]byte, 300)) {
		t.Error("the frames did not come back")
	}
	if p.Append(core.Total, []byte("b")) {
		t.Error("a frame out of an empty pool")
	}
	p.Release()
}

func TestTakeFromNothing(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("no assertion")
		}
	}()
	New(newOutbox(t, 1), 1).Take()
}

func TestAppendDoesNotAllocate(t *testing.T) {
	out := newOutbox(t, 1024)
	p := New(out, 1<<20)
	msg := make([]byte, 100)
	if n := testing.AllocsPerRun(1000, func() {
		p.Append(core.FIFO, msg)
		if p.Len() > 200 {
			for p.Len() > 100 {
				out.Arena().Tx().Release(p.Take().Frame)
			}
		}
	}); n != 0 {
		t.Errorf("%v allocations for a message", n)
	}
	p.Release()
	closeOutbox(t, out)
}
