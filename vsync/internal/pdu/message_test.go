package pdu

import (
	"errors"
	"reflect"
	"testing"

	"pgregory.net/rapid"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/vsync/core"
)

// fresh returns an empty message of a type, nil for types without a layout of their own in this package.
func fresh(t Type) Message {
	switch t {
	case TypeWelcome:
		return new(Welcome)
	case TypeDone:
		return new(Done)
	case TypeRefuse:
		return new(Refuse)
	case TypePropose:
		return new(Propose)
	case TypeReport:
		return new(Report)
	case TypeCut:
		return new(Cut)
	case TypeReady:
		return new(Ready)
	case TypeDecide:
		return new(Decision)
	case TypeWatch:
		return new(Watch)
	case TypePoison:
		return new(Poison)
	}
	return nil
}

func address(i int) core.Address {
	return core.Address{PID: uint32(i), Port: uint16(i), AckPort: uint16(i + 1), Incarnation: uint64(i) + 1}
}

func drawAddresses(t *rapid.T, name string, least int) []core.Address {
	n := rapid.IntRange(least, 5).Draw(t, name)
	if n == 0 {
		return nil
	}
	list := make([]core.Address, n)
	for i := range list {
		list[i] = address(10*i + rapid.IntRange(0, 9).Draw(t, "who"))
	}
	return list
}

func drawView(t *rapid.T, least int) *core.View {
	return &core.View{
		Group: core.GroupIDOf(rapid.String().Draw(t, "group")), ID: core.ViewID(rapid.Uint64().Draw(t, "id")),
		Members: drawAddresses(t, "members", least), Joined: drawAddresses(t, "joined", 0),
		Left: drawAddresses(t, "left", 0),
	}
}

func drawSeqs(t *rapid.T, n int) []core.Seq {
	list := make([]core.Seq, n)
	for i := range list {
		list[i] = core.Seq(rapid.Uint64Range(0, 1<<40).Draw(t, "seq"))
	}
	return list
}

func drawDecision(t *rapid.T) *Decision {
	d := &Decision{
		Name: rapid.String().Draw(t, "name"), Lid: rapid.Uint32().Draw(t, "lid"),
		Channel:    dataplane.Channel(rapid.Uint32().Draw(t, "channel")),
		SafeCopies: rapid.IntRange(-1, 100).Draw(t, "copies"), Prev: core.ViewID(rapid.Uint64().Draw(t, "prev")),
		View: drawView(t, 0), Cut: drawSeqs(t, rapid.IntRange(0, 5).Draw(t, "cut")),
		Source: address(rapid.IntRange(0, 9).Draw(t, "source")), Stateless: drawAddresses(t, "stateless", 0),
		Failed: drawAddresses(t, "failed", 0),
	}
	for i := range d.Failed {
		d.Charges = append(d.Charges, Charge{By: address(i), Reason: rapid.String().Draw(t, "reason")})
	}
	return d
}

func drawReport(t *rapid.T) *Report {
	m := &Report{
		Lid: rapid.Uint32().Draw(t, "lid"), Next: core.ViewID(rapid.Uint64().Draw(t, "next")),
		Holdings: make([]Holding, rapid.IntRange(0, 4).Draw(t, "streams")), HasState: rapid.Bool().Draw(t, "state"),
		Source: address(rapid.IntRange(0, 9).Draw(t, "source")),
	}
	for i := range m.Holdings {
		h := &m.Holdings[i]
		h.ReceivedTo = core.Seq(rapid.Uint64Range(0, 1<<40).Draw(t, "to"))
		h.Islands = make([]Island, rapid.IntRange(0, 3).Draw(t, "islands"))
		at := h.ReceivedTo + 1
		for j := range h.Islands {
			first := at + core.Seq(rapid.Uint64Range(1, 100).Draw(t, "gap"))
			at = first + core.Seq(rapid.Uint64Range(0, 100).Draw(t, "length"))
			h.Islands[j] = Island{first, at}
		}
	}
	return m
}

func drawCut(t *rapid.T) *Cut {
	n := rapid.IntRange(0, 4).Draw(t, "streams")
	m := &Cut{
		Lid: rapid.Uint32().Draw(t, "lid"), Next: core.ViewID(rapid.Uint64().Draw(t, "next")),
		Cut: drawSeqs(t, n), Segments: make([][]Segment, n),
	}
	for i := range m.Segments {
		for range rapid.IntRange(0, 3).Draw(t, "segments") {
			s := Segment{core.Seq(rapid.Uint64Range(0, 1<<40).Draw(t, "last")),
				core.Rank(rapid.IntRange(0, n-1).Draw(t, "holder"))}
			m.Segments[i] = append(m.Segments[i], s)
		}
	}
	return m
}

func drawMessage(t *rapid.T) (Type, Message) {
	switch rapid.IntRange(0, 9).Draw(t, "type") {
	case 0:
		return TypeWelcome, &Welcome{System: rapid.Uint32().Draw(t, "system"), Part: rapid.Uint32().Draw(t, "part"),
			Oracle: drawAddresses(t, "oracle", 0)}
	case 1:
		return TypeDone, &Done{rapid.Uint64().Draw(t, "number")}
	case 2:
		return TypeRefuse, &Refuse{Name: rapid.String().Draw(t, "name"), Reason: rapid.Byte().Draw(t, "reason"),
			Number: rapid.Uint64().Draw(t, "number"), Handlers: rapid.String().Draw(t, "handlers")}
	case 3:
		return TypePropose, &Propose{drawDecision(t), drawView(t, 0), drawAddresses(t, "flushers", 0), address(3)}
	case 4:
		return TypeReport, drawReport(t)
	case 5:
		return TypeCut, drawCut(t)
	case 6:
		return TypeReady, &Ready{rapid.Uint32().Draw(t, "lid"), core.ViewID(rapid.Uint64().Draw(t, "next"))}
	case 7:
		return TypeDecide, drawDecision(t)
	case 8:
		return TypeWatch, &Watch{rapid.Uint64().Draw(t, "epoch"), drawAddresses(t, "targets", 0),
			drawAddresses(t, "watchers", 0)}
	}
	return TypePoison, &Poison{Accuser: address(rapid.IntRange(0, 9).Draw(t, "accuser")),
		Part: rapid.Uint32().Draw(t, "part"), Reason: rapid.String().Draw(t, "reason")}
}

// Whatever is encoded is read back as it was; any shorter form, and any longer one, is refused.
func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		kind, want := drawMessage(t)
		b := Encode(kind, want)
		if Type(b[0]) != kind {
			t.Fatalf("type %d in front, want %d", b[0], kind)
		}
		got := fresh(kind)
		if err := Decode(got, b[1:]); err != nil {
			t.Fatalf("%T %+v: %v", want, want, err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("%T: got %+v, want %+v", want, got, want)
		}
		for n := 1; n < len(b); n++ {
			if err := Decode(fresh(kind), b[1:n]); !errors.Is(err, ErrMalformed) {
				t.Fatalf("%T cut off after %d of %d bytes: error %v", want, n-1, len(b)-1, err)
			}
		}
		if err := Decode(fresh(kind), append(b[1:], 0)); !errors.Is(err, ErrMalformed) {
			t.Fatalf("%T with a byte left over: error %v", want, err)
		}
	})
}

// No reader makes room for more than the bytes it was given can hold.
func TestClaimsAreNotBelieved(t *testing.T) {
	var huge Writer
	huge.Uint(1 << 60)
	claim := huge.B
	body := func(build func(w *Writer)) []byte {
		var w Writer
		build(&w)
		return append(w.B, claim...)
	}
	header := func(w *Writer) { w.Uint(1); w.Uint(2) }
	for _, c := range []struct {
		name string
		kind Type
		body []byte
	}{
		{"name of a refusal", TypeRefuse, claim},
		{"streams of a report", TypeReport, body(header)},
		{"islands of a report", TypeReport, body(func(w *Writer) { header(w); w.Uint(1); w.Uint(5) })},
		{"streams of a cut", TypeCut, body(header)},
		{"segments of a cut", TypeCut, body(func(w *Writer) { header(w); w.Uint(1); w.Uint(5) })},
		{"members of the ORACLE", TypeWelcome, []byte{1, 0, 255, 255, 255, 255}},
		{"targets", TypeWatch, []byte{1, 255, 255, 0, 0}},
		{"reason of a poison", TypePoison, body(func(w *Writer) { w.Address(address(1)); w.Uint(0) })},
	} {
		err := error(nil)
		allocated := testing.AllocsPerRun(1, func() { err = Decode(fresh(c.kind), c.body) })
		if !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: error %v", c.name, err)
		}
		if allocated > 20 {
			t.Errorf("%s: %v allocations for a claim", c.name, allocated)
		}
	}
}

// Values that no sender writes are refused, so that no machine has to live with them.
func TestImpossibleValues(t *testing.T) {
	report := func(to core.Seq, islands ...Island) []byte {
		m := Report{Holdings: []Holding{{ReceivedTo: to, Islands: islands}}}
		return Encode(TypeReport, &m)[1:]
	}
	cut := func(holder core.Rank) []byte {
		m := Cut{Cut: []core.Seq{7}, Segments: [][]Segment{{{7, holder}}}}
		return Encode(TypeCut, &m)[1:]
	}
	decision := Decision{Name: "g", Cut: []core.Seq{}}
	noNext := Propose{Base: &Decision{Name: "g", View: &core.View{}, Cut: []core.Seq{}}}
	for _, c := range []struct {
		name string
		m    Message
		body []byte
		ok   bool
	}{
		{"islands in order", new(Report), report(5, Island{7, 8}, Island{10, 10}), true},
		{"an island that is no island", new(Report), report(5, Island{5, 8}), false},
		{"an island that overlaps the one before", new(Report), report(5, Island{7, 9}, Island{9, 12}), false},
		{"an island that ends before it begins", new(Report), report(5, Island{7, 6}), false},
		{"an island behind the end of numbers", new(Report), report(1<<64-1, Island{3, 4}), false},
		{"a holder in the view", new(Cut), cut(0), true},
		{"a holder outside the view", new(Cut), cut(1), false},
		{"a negative holder", new(Cut), cut(-1), false},
		{"a decision without a view", new(Decision), Encode(TypeDecide, &decision)[1:], false},
		{"a proposal without a view", new(Propose), Encode(TypePropose, &noNext)[1:], false},
		{"a truth value of 2", new(Report), []byte{1, 1, 0, 2}, false},
	} {
		if err := Decode(c.m, c.body); (err == nil) != c.ok {
			t.Errorf("%s: error %v", c.name, err)
		}
	}
}

func TestReader(t *testing.T) {
	var w Writer
	w.Bytes([]byte("abc"))
	w.Byte(9)
	r := NewReader(w.B)
	if got := r.Bytes(); string(got) != "abc" || cap(got) != 3 {
		t.Errorf("bytes %q with room for %d", got, cap(got))
	}
	if !r.More() || len(r.Rest()) != 1 {
		t.Errorf("more %v, rest %v", r.More(), r.Rest())
	}
	if r.Byte() != 9 || r.More() || r.Err() != nil {
		t.Errorf("more %v, error %v after the last byte", r.More(), r.Err())
	}
	if r.Byte() != 0 || !errors.Is(r.Err(), ErrMalformed) || !errors.Is(r.End(), ErrMalformed) {
		t.Errorf("error %v beyond the end", r.Err())
	}
	for _, b := range [][]byte{nil, make([]byte, 3), {1, 0, 0, 0}} {
		r := NewReader(b)
		if r.Addresses() != nil || r.Err() == nil {
			t.Errorf("addresses of %v: error %v", b, r.Err())
		}
	}
	if r := NewReader([]byte{1}); r.View() != nil || r.Err() == nil {
		t.Errorf("view of one byte: error %v", r.Err())
	}
	if r := NewReader([]byte{0}); r.View() != nil || r.Err() != nil {
		t.Errorf("no view: error %v", r.Err())
	}
}

func TestTypes(t *testing.T) {
	if TypeNone.Valid() || types.Valid() || !TypeAttach.Valid() || !TypePeer.Valid() {
		t.Errorf("valid: none %v, end %v, first %v, last %v", TypeNone.Valid(), types.Valid(), TypeAttach.Valid(),
			TypePeer.Valid())
	}
}

// FuzzMessages reads anything as any control message. What is accepted must be written and read back the same.
func FuzzMessages(f *testing.F) {
	for kind := TypeNone; kind < types; kind++ {
		f.Add([]byte{byte(kind), 0, 0, 0})
	}
	report := &Report{Lid: 1, Next: 2, Holdings: []Holding{{3, []Island{{5, 6}}}}}
	f.Add(Encode(TypeReport, report))
	f.Add(Encode(TypeCut, &Cut{Lid: 1, Next: 2, Cut: []core.Seq{3}, Segments: [][]Segment{{{3, 0}}}}))
	d := &Decision{Name: "g", View: &core.View{ID: 1, Members: []core.Address{address(1)}}}
	f.Add(Encode(TypeDecide, d))
	f.Add(Encode(TypePropose, &Propose{Base: d, Next: d.View}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) == 0 || fresh(Type(b[0])) == nil {
			return
		}
		m, again := fresh(Type(b[0])), fresh(Type(b[0]))
		if Decode(m, b[1:]) != nil {
			return
		}
		if err := Decode(again, Encode(Type(b[0]), m)[1:]); err != nil || !reflect.DeepEqual(m, again) {
			t.Fatalf("%T: %+v became %+v, error %v", m, m, again, err)
		}
	})
}
