package wire

import (
	"errors"
	"testing"

	"pgregory.net/rapid"
)

func drawHeader(t *rapid.T) Header {
	return Header{
		Kind:   Kind(rapid.IntRange(1, int(kinds)-1).Draw(t, "kind")),
		Flags:  rapid.Byte().Draw(t, "flags"),
		System: rapid.Uint32().Draw(t, "system"),
		Group:  rapid.Uint32().Draw(t, "group"),
		View:   rapid.Uint64().Draw(t, "view"),
		Seq:    rapid.Uint64().Draw(t, "seq"),
		Rank:   rapid.Uint32().Draw(t, "rank"),
		Aux:    rapid.Uint32().Draw(t, "aux"),
	}
}

func TestHeaderRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := drawHeader(t)
		packet := append(make([]byte, HeaderLen), rapid.SliceOf(rapid.Byte()).Draw(t, "payload")...)
		h.Encode(packet)
		Seal(packet)
		var got Header
		if err := got.Decode(packet); err != nil {
			t.Fatal(err)
		}
		if got != h {
			t.Fatalf("got %+v, want %+v", got, h)
		}
	})
}

// Every single flipped bit must be noticed, wherever it is.
func TestDecodeNoticesEveryFlippedBit(t *testing.T) {
	packet := append(make([]byte, HeaderLen), "the payload"...)
	h := Header{Kind: KindData, Flags: 3, System: 7, Group: 9, View: 11, Seq: 13, Rank: 17, Aux: 19}
	h.Encode(packet)
	Seal(packet)
	for bit := range len(packet) * 8 {
		packet[bit/8] ^= 1 << (bit % 8)
		var got Header
		if err := got.Decode(packet); err == nil {
			t.Fatalf("bit %d flipped: Decode accepted the packet", bit)
		}
		packet[bit/8] ^= 1 << (bit % 8)
	}
}

func TestDecodeErrors(t *testing.T) {
	good := make([]byte, HeaderLen)
	(&Header{Kind: KindAck}).Encode(good)
	Seal(good)
	for _, c := range []struct {
		name string
		harm func([]byte) []byte
		want error
	}{
		{"empty", func([]byte) []byte { return nil }, ErrShort},
		{"cut off", func(b []byte) []byte { return b[:HeaderLen-1] }, ErrShort},
		{"foreign", func(b []byte) []byte { b[0] = 'X'; return b }, ErrMagic},
		{"version", func(b []byte) []byte { b[1]++; return b }, ErrVersion},
		{"kind", func(b []byte) []byte { b[2] = byte(kinds); return b }, ErrKind},
		{"checksum", func(b []byte) []byte { b[20] ^= 4; return b }, ErrCRC},
	} {
		var h Header
		if err := h.Decode(c.harm(append([]byte(nil), good...))); !errors.Is(err, c.want) {
			t.Errorf("%s: error %v, want %v", c.name, err, c.want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte{})
	f.Add(make([]byte, HeaderLen))
	f.Fuzz(func(t *testing.T, b []byte) {
		var h Header
		if h.Decode(b) == nil {
			again := append([]byte(nil), b...)
			h.Encode(again)
			Seal(again)
			if string(again) != string(b) {
				t.Fatalf("decode and encode changed the packet:\n%x\n%x", b, again)
			}
		}
	})
}

func BenchmarkDecode1400(b *testing.B) {
	packet := make([]byte, 1400)
	(&Header{Kind: KindData}).Encode(packet)
	Seal(packet)
	b.SetBytes(int64(len(packet)))
	b.ReportAllocs()
	var h Header
	for b.Loop() {
		if err := h.Decode(packet); err != nil {
			b.Fatal(err)
		}
	}
}
