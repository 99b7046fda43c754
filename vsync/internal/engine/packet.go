package engine

import (
	"encoding/binary"
	"errors"

	"github.com/khamsin-io/khamsin/dataplane/wire"
	"github.com/khamsin-io/khamsin/vsync/internal/canary"
	"github.com/khamsin-io/khamsin/vsync/internal/seal"
	"github.com/khamsin-io/khamsin/vsync/internal/stream"
)

// StreamCounters counts what the groups' streams saw.
type StreamCounters = stream.Counters

// NextMessage takes the first message off the bytes of a DeliverMessages delivery. False means that there is none, or
// that the rest is malformed. The message aliases b.
func NextMessage(b []byte) (msg, rest []byte, ok bool) {
	n, k := uint64(0), 1
	if len(b) > 0 && b[0] < 0x80 {
		n = uint64(b[0])
	} else {
		n, k = binary.Uvarint(b)
	}
	if k <= 0 || n > uint64(len(b)-k) {
		return nil, nil, false
	}
	end := k + int(n)
	return b[k:end:end], b[end:], true
}

// errSigned is what a system without a key says of signed packets.
var errSigned = errors.New("engine: a signed packet in a system without a key") // immutable: an error

// decode checks a packet and reads its header.
func (e *Engine) decode(h *wire.Header, b []byte) error {
	var err error
	if e.cfg.NoSums && e.ring == nil {
		err = h.Peek(b)
	} else {
		err = h.Decode(b)
	}
	if canary.Enabled && e.cfg.Canary == canary.TrustDamage && errors.Is(err, wire.ErrCRC) {
		return h.Peek(b)
	}
	if err != nil {
		return err
	}
	switch {
	case e.ring != nil:
		again := h.Kind == wire.KindData || h.Kind == wire.KindLink // their numbers tell
		err = e.ring.Open(b, h.Signed, again)
	case h.Signed:
		err = errSigned
	}
	if err != nil && h.Kind == wire.KindBeacon && !errors.Is(err, seal.ErrReplayed) {
		e.suspectKey(h, b)
	}
	return err
}

// suspectKey notes a beacon that is not to be opened, if it names this system. A founder learns of that when it has
// founded a system (hooks.Attached); who may not found one, or not alone, has looked for long enough by then.
func (e *Engine) suspectKey(h *wire.Header, b []byte) {
	at := wire.HeaderLen
	if h.Signed {
		at += seal.Overhead
	}
	if len(b) >= at && e.member.IsBeacon(b[at:]) {
		e.clash = true
		e.member.Show(e.now)
		if !e.genuine && e.member.SeeksInVain(e.now) {
			e.finish(ErrOtherKey)
		}
	}
}

func (e *Engine) countBad(err error) {
	switch {
	case errors.Is(err, wire.ErrCRC):
		e.count.BadCRC++
	case errors.Is(err, seal.ErrForged):
		e.count.Forged++
	case errors.Is(err, seal.ErrReplayed):
		e.count.Replayed++
	case errors.Is(err, seal.ErrUnsigned), errors.Is(err, errSigned):
		e.count.Unsigned++
	case errors.Is(err, wire.ErrShort):
		e.count.Short++
	case errors.Is(err, wire.ErrKind):
		e.count.Malformed++
	default:
		e.count.Foreign++
	}
}

// Counters returns what was counted since the engine was made.
func (e *Engine) Counters() Counters {
	c := e.count
	c.HeartbeatsSent, c.HeartbeatsHeard = e.detect.Sent, e.detect.Heard
	c.LinkSent, c.LinkResent, c.Starved = e.links.Count.Sent, e.links.Count.Resent, e.box.Starved
	for _, g := range e.groups {
		if g != nil && g.st != nil {
			addCounters(&c.Streams, &g.st.Count)
		}
	}
	return c
}

func addCounters(sum, x *stream.Counters) {
	sum.Sent += x.Sent
	sum.Resent += x.Resent
	sum.Received += x.Received
	sum.Duplicates += x.Duplicates
	sum.Ahead += x.Ahead
	sum.AcksSent += x.AcksSent
	sum.AcksReceived += x.AcksReceived
	sum.NaksSent += x.NaksSent
	sum.NaksGot += x.NaksGot
	sum.SyncsSent += x.SyncsSent
	sum.SyncsReceived += x.SyncsReceived
	sum.Malformed += x.Malformed
	sum.Missed += x.Missed
}
