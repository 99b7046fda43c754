package engine

import (
	"bytes"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/wire"
	"github.com/khamsin-io/khamsin/vsync/core"
	"github.com/khamsin-io/khamsin/vsync/internal/pdu"
	"github.com/khamsin-io/khamsin/vsync/internal/seal"
)

// Processes whose keys differ, or of which one has none, are not of one system: the newcomer ends with an error that
// says so, and the system that is there goes on. That the newcomer may found no system makes no difference.
//
// rows: SEC-11
func TestKeysThatDiffer(t *testing.T) {
	for name, keys := range map[string][2]byte{
		"two keys": {1, 2}, "the newcomer has none": {1, 0}, "only the newcomer": {0, 2},
	} {
		t.Run(name, func(t *testing.T) {
			mayFound := true
			w := newNetOf(t, 0, func(c *Config) {
				c.Oracle.Eligible = mayFound
				if k := keys[min(c.Self.PID-1, 1)]; k != 0 {
					c.Key = bytes.Repeat([]byte{k}, seal.KeyLen)
				}
			})
			a := w.add()
			w.run(2 * time.Second)
			h := a.join(JoinRequest{Name: "g"})
			w.run(time.Second)
			for _, mayFound = range []bool{true, false} {
				b := w.add()
				w.run(2 * time.Second)
				e, over := b.event(EventOver)
				if _, attached := b.event(EventAttached); !over || attached || !errors.Is(e.Err, ErrOtherKey) {
					t.Errorf("a newcomer (may found %v) is over %v, attached %v: %v", mayFound, over, attached, e.Err)
				}
			}
			a.submit(h, core.FIFO, "still here")
			w.run(time.Second)
			if _, over := a.event(EventOver); over || !slices.Contains(a.msgs, "still here") {
				t.Errorf("the system that was there is over %v, delivered %q", over, a.msgs)
			}
		})
	}
}

// Packets that are thrown at a member again, all that it ever got, change nothing: those that have no number are
// refused because of their counter, the others are known.
//
// rows: SEC-11, SEC-18
func TestReplay(t *testing.T) {
	w := newNetOf(t, 2, func(c *Config) { c.Key = bytes.Repeat([]byte{7}, seal.KeyLen) })
	w.run(time.Second)
	var heard []arrival
	w.drop = func(from, to int, b []byte) bool {
		if to == 2 {
			heard = append(heard, arrival{to: w.nodes[1], from: w.nodes[from-1].ep, data: bytes.Clone(b)})
		}
		return false
	}
	var hs []Handle
	for _, x := range w.nodes {
		hs = append(hs, x.join(JoinRequest{Name: "g"}))
		w.run(time.Second)
	}
	for _, f := range []core.Flavour{core.FIFO, core.Total, core.Raw, core.Safe, core.Unordered} {
		w.nodes[0].submit(hs[0], f, "once "+f.String())
		w.run(100 * time.Millisecond)
	}
	w.drop = nil
	b := w.nodes[1]
	before, refused := slices.Clone(b.msgs), b.e.Counters().Replayed
	for _, a := range heard {
		a.arrive(w)
	}
	w.run(time.Second)
	if !slices.Equal(before, b.msgs) {
		t.Errorf("delivered %q, and %q after the replay", before, b.msgs)
	}
	if n := b.e.Counters().Replayed - refused; n == 0 || n > uint64(len(heard)) {
		t.Errorf("%d of %d packets were refused as replays", n, len(heard))
	}
}

// Who has not the key cannot have a process declared failed; without a key he can.
//
// rows: SEC-20
func TestPoisonCannotBeForged(t *testing.T) {
	for _, keyed := range []bool{true, false} {
		w := newNetOf(t, 2, func(c *Config) {
			if keyed {
				c.Key = bytes.Repeat([]byte{7}, seal.KeyLen)
			}
		})
		w.run(2 * time.Second)
		victim, other := w.nodes[1], w.nodes[0]
		m := &pdu.Poison{
			Accuser: other.e.cfg.Self, Teller: other.e.cfg.Self, Part: other.e.member.Part(), Reason: "no reason",
		}
		var body pdu.Writer
		m.Append(&body)
		h := wire.Header{
			Kind: wire.KindPoison, System: other.e.box.System, View: other.e.cfg.Self.Incarnation,
			Rank: uint32(victim.e.cfg.Self.Incarnation),
		}
		for _, head := range []int{wire.HeaderLen, wire.HeaderLen + seal.Overhead} {
			packet := append(make([]byte, head), body.B...)
			h.Encode(packet)
			if head > wire.HeaderLen {
				packet[wire.KindOffset] |= wire.SignedBit
			}
			wire.Seal(packet)
			arrival{to: victim, from: dataplane.Endpoint{Port: 9}, data: packet}.send(w)
		}
		w.run(time.Second)
		_, over := victim.event(EventOver)
		c := victim.e.Counters()
		if over == keyed || keyed && (c.Unsigned != 1 || c.Forged != 1) {
			t.Errorf("with a key %v: over %v, %d unsigned and %d forged packets", keyed, over, c.Unsigned, c.Forged)
		}
	}
}

// send makes a packet of nobody's arrive.
func (a arrival) send(w *net) { a.arrive(w) }

// A system without checksums takes in damaged packets, as it was told; with a key it does not, whatever it was told.
//
// rows: SEC-14, SEC-16, SEC-17
func TestNoSums(t *testing.T) {
	for _, c := range []struct {
		noSums, key bool
		bad         uint64
	}{{false, false, 1}, {true, false, 0}, {true, true, 1}} {
		w := newNetOf(t, 2, func(cfg *Config) {
			if cfg.NoSums = c.noSums; c.key {
				cfg.Key = bytes.Repeat([]byte{7}, seal.KeyLen)
			}
		})
		w.run(time.Second)
		var hs []Handle
		for _, x := range w.nodes {
			hs = append(hs, x.join(JoinRequest{Name: "g"}))
			w.run(time.Second)
		}
		harmed := false
		w.drop = func(from, _ int, b []byte) bool {
			if i := bytes.Index(b, []byte("harm me")); from == 1 && i > 0 && !harmed {
				harmed = true
				b[i] ^= 1
			}
			return false
		}
		w.nodes[0].submit(hs[0], core.FIFO, "harm me")
		w.run(time.Second)
		got := w.nodes[1]
		if n := got.e.Counters().BadCRC; n != c.bad || slices.Contains(got.msgs, "harm me") == (c.bad == 0) {
			t.Errorf("%+v: %d packets with a bad checksum, delivered %q", c, n, got.msgs)
		}
	}
}
