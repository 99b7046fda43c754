package engine

import (
	"testing"
	"time"

	"github.com/khamsin-io/khamsin/dataplane/wire"
	"github.com/khamsin-io/khamsin/vsync/core"
	"github.com/khamsin-io/khamsin/vsync/internal/link"
	"github.com/khamsin-io/khamsin/vsync/internal/pdu"
)

// reader takes bytes off a fuzz target's input; zeros when there are no more.
type reader struct{ b []byte }

func (r *reader) next() byte {
	if len(r.b) == 0 {
		return 0
	}
	v := r.b[0]
	r.b = r.b[1:]
	return v
}

func (r *reader) some(n byte) []byte {
	b := r.b[:min(len(r.b), int(n))]
	r.b = r.b[len(b):]
	return b
}

// FuzzEngine lets anything come to a member from a fellow member that has gone mad, while the application sends,
// flushes and leaves. Nothing may break, no frame may be lost, and in the end the member is alone in its view.
// Decisions and proposals are left out: the ORACLE is believed.
func FuzzEngine(f *testing.F) {
	f.Add([]byte{0, 1, 0, 5, 1, 1, 4, 0, 1, 1, 0, 2, 'h', 'i', 3, 9})
	f.Add([]byte{0, 4, 5, 2, 3, 1, 1, 2, 1, 0, 6, 7, 3, 1, 2, 3, 3, 30, 2, 0})
	f.Add([]byte{4, 0, 0x41, 1, 1, 0, 3, 1, 1, 1, 0, 3, 4, 2, 0x29, 2, 0, 2, 9, 9, 3, 200, 5})
	f.Add([]byte("770100100"))
	f.Fuzz(func(t *testing.T, b []byte) {
		w, hs := form(t, 2)
		x, mad := w.nodes[0], w.nodes[1]
		mad.dead, w.forged = true, true
		in, sent := reader{b}, 0
		for step := 0; len(in.b) > 0 && step < 100; step++ {
			switch in.next() % 8 {
			case 0:
				if x.submit(hs[0], core.Flavour(in.next()%6), string([]byte{'#', byte(sent)})) == Accepted {
					sent++
				}
			case 1:
				x.e.Flush(w.now, hs[0], int(in.next()%4), uint64(len(in.b)))
				x.collect()
			case 2:
				x.e.Leave(w.now, hs[0])
				x.collect()
			case 3:
				w.run(time.Duration(in.next()) * time.Millisecond)
			case 4:
				kind := pdu.Type(in.next() % 20)
				if kind == pdu.TypePropose || kind == pdu.TypeDecide || kind == pdu.TypeConsensus {
					continue
				}
				m := link.Message{From: mad.e.cfg.Self.Incarnation, Kind: link.Kind(in.next() % 3)}
				m.Group = uint32(in.next() % 3)
				m.Data = append([]byte{byte(kind)}, in.some(in.next())...)
				x.e.OnMessage(w.now, m)
				x.collect()
			default:
				x.receive(in.header(x), in.some(in.next()%64), nil)
			}
		}
		w.run(20 * time.Second)
		if x.e.Over() {
			return
		}
		if v := x.e.View(hs[0]); v != nil && v.Size() != 1 {
			t.Fatalf("view %v, and its other member is gone:\n%s", v, x.e.Dump())
		}
	})
}

// header makes a header that mostly means something to a member of the group.
func (r *reader) header(x *node) wire.Header {
	h := wire.Header{
		Kind: wire.KindData + wire.Kind(r.next()%9), Flags: r.next(), Group: uint32(r.next() % 3), View: 1, Rank: 1,
		Seq: uint64(r.next()), Aux: uint32(r.next() % 8),
	}
	switch k := r.next(); {
	case h.Kind >= wire.KindLink:
		h.View, h.Rank = x.net.nodes[1].e.cfg.Self.Incarnation, uint32(x.e.cfg.Self.Incarnation)
	case k < 32:
		h.Rank = uint32(k % 4)
	case k < 64:
		h.View = uint64(k % 4)
	}
	return h
}
