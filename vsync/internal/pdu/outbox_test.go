package pdu

import (
	"strings"
	"testing"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/frame"
	"github.com/khamsin-io/khamsin/dataplane/wire"
	"github.com/khamsin-io/khamsin/vsync/core"
)

func newOutbox(t testing.TB, chunks, mtu int) *Outbox {
	t.Helper()
	arena, err := frame.New(frame.Config{TxChunks: chunks})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := arena.Close(); err != nil {
			t.Error(err)
		}
	})
	return NewOutbox(arena, mtu)
}

func TestOutbox(t *testing.T) {
	o := newOutbox(t, 2, 256)
	o.System = 77
	if o.MTU() != 256 || o.Room() != 256-wire.HeaderLen {
		t.Errorf("MTU %d, room %d", o.MTU(), o.Room())
	}
	h := wire.Header{Kind: wire.KindAck, Group: 5}
	f, ok := o.Make(&h, []byte("payload"))
	if !ok {
		t.Fatal("no frame")
	}
	var got wire.Header
	b := o.Arena().Bytes(f)
	if err := got.Decode(b); err != nil || got.System != 77 || got.Group != 5 ||
		string(b[wire.HeaderLen:]) != "payload" {
		t.Errorf("packet %+v with %q, error %v", got, b[wire.HeaderLen:], err)
	}
	to, ch := dataplane.Endpoint{Port: 3}, dataplane.Channel(4)
	o.Unicast(f, to)
	g, _ := o.Alloc()
	o.Multicast(g, ch)
	want := []dataplane.Packet{{Frame: f, To: to}, {Frame: g, Channel: ch}}
	if len(o.Packets) != 2 || o.Packets[0] != want[0] || o.Packets[1] != want[1] {
		t.Errorf("packets %v, want %v", o.Packets, want)
	}
	if _, ok := o.Make(&h, nil); ok || o.Starved != 1 {
		t.Errorf("a frame out of an empty pool; starved %d", o.Starved)
	}
	for _, p := range o.Packets {
		o.Arena().Tx().Release(p.Frame)
	}
}

func TestExtendBeyondTheMTU(t *testing.T) {
	o := newOutbox(t, 1, 256)
	f, _ := o.Alloc()
	defer o.Arena().Tx().Release(f)
	defer func() {
		if r := recover(); r == nil || !strings.Contains(r.(error).Error(), "257 bytes above the MTU of 256") {
			t.Errorf("assertion: %v", r)
		}
	}()
	o.Extend(f, make([]byte, o.Room()+1))
}

func TestMakeDoesNotAllocate(t *testing.T) {
	o := newOutbox(t, 4, 1400)
	o.Packets = make([]dataplane.Packet, 0, 4)
	payload, h := make([]byte, 100), wire.Header{Kind: wire.KindData}
	if n := testing.AllocsPerRun(100, func() {
		f, _ := o.Make(&h, payload)
		o.Unicast(f, dataplane.Endpoint{})
		o.Packets = o.Packets[:0]
		o.Arena().Tx().Release(f)
	}); n != 0 {
		t.Errorf("%v allocations for a packet", n)
	}
}

func TestFlags(t *testing.T) {
	fifo := Flags(core.FIFO)
	for _, c := range []struct {
		name  string
		flags uint8
		ok    bool
	}{
		{"unordered", Flags(core.Unordered), true},
		{"safe", Flags(core.Safe), true},
		{"raw is not numbered", Flags(core.Raw), false},
		{"no such flavour", 7, false},
		{"first piece", fifo | FlagFragment | FlagFirst | FlagMore, true},
		{"last piece", fifo | FlagFragment, true},
		{"first without fragment", fifo | FlagFirst, false},
		{"more without fragment", fifo | FlagMore, false},
		{"order record", fifo | FlagOrder, true},
		{"causal record", fifo | FlagCause, true},
		{"both records", fifo | FlagOrder | FlagCause, false},
		{"order record in pieces", fifo | FlagOrder | FlagFragment, false},
		{"order record of another flavour", Flags(core.Total) | FlagOrder, false},
	} {
		if ValidFlags(c.flags) != c.ok {
			t.Errorf("%s: valid %v", c.name, !c.ok)
		}
	}
	if !IsControl(fifo|FlagOrder) || !IsControl(fifo|FlagCause) || IsControl(fifo|FlagFragment) {
		t.Error("records are not told from messages")
	}
	for f := core.Unordered; f <= core.Raw; f++ {
		if FlavourOf(Flags(f)|FlagFragment|FlagMore) != f {
			t.Errorf("flavour %v becomes %v", f, FlavourOf(Flags(f)))
		}
	}
}
