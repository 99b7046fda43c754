package sim

import (
	"fmt"
	"io"

	"github.com/khamsin-io/khamsin/dataplane/clock"
	"github.com/khamsin-io/khamsin/dataplane/wire"
)

// tracer keeps a running hash over everything that happens, and writes it down when somebody wants to read it.
type tracer struct {
	hash uint64
	out  io.Writer // nil: nobody reads
}

// Words that go into the hash, one for each kind of happening.
const (
	traceEvent = iota + 1
	traceSend
	traceLose
	traceReceive
	traceDeliver
	traceSubmit
	traceEngineEvent
	traceFate
)

// note adds a happening to the hash.
func (t *tracer) note(what uint64, at clock.Time, a, b uint64) {
	h := t.hash
	h = (h ^ what ^ uint64(at)<<4) * 0x9e3779b97f4a7c15
	h = (h ^ h>>29 ^ a) * 0xbf58476d1ce4e5b9
	t.hash = h ^ h>>32 ^ b
}

// printf writes a line of the timeline. Callers test t.out first where the arguments cost something.
func (t *tracer) printf(at clock.Time, who string, format string, args ...any) {
	if t.out != nil {
		fmt.Fprintf(t.out, "%12s  %-5s ", stamp(at), who)
		fmt.Fprintf(t.out, format, args...)
		fmt.Fprintln(t.out)
	}
}

// stamp prints a virtual time in milliseconds.
func stamp(at clock.Time) string { return fmt.Sprintf("%.6fms", float64(at)/1e6) }

// kindNames are the names of the kinds of packets in traces and stories.
//
// immutable: table of names
var kindNames = [...]string{
	"none", "data", "raw", "ack", "nak", "sync", "link", "linkack", "beacon", "heartbeat", "poison",
}

// kindName returns the name of a kind of packet.
func kindName(k wire.Kind) string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("kind%d", k)
}

// describe prints a packet in a few words.
func describe(packet []byte) string {
	var h wire.Header
	if err := h.Peek(packet); err != nil {
		return fmt.Sprintf("%d bytes (%v)", len(packet), err)
	}
	switch h.Kind {
	case wire.KindData, wire.KindRaw, wire.KindAck, wire.KindNak, wire.KindSync:
		return fmt.Sprintf("%s group=%d view=%d rank=%d seq=%d flags=%#x aux=%d, %d bytes",
			kindName(h.Kind), h.Group, h.View, h.Rank, h.Seq, h.Flags, h.Aux, len(packet))
	}
	return fmt.Sprintf("%s seq=%d flags=%#x aux=%d, %d bytes", kindName(h.Kind), h.Seq, h.Flags, h.Aux, len(packet))
}
