package core

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func drawAddress(t *rapid.T, name string) Address {
	var a Address
	copy(a.IP[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, name))
	a.PID, a.Port = rapid.Uint32().Draw(t, "pid"), rapid.Uint16().Draw(t, "port")
	a.AckPort = rapid.Uint16().Draw(t, "ack")
	a.Incarnation = rapid.Uint64().Draw(t, "incarnation")
	return a
}

func TestAddressRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := drawAddress(t, "ip")
		var text, binary Address
		b, err := a.MarshalText()
		if err != nil || text.UnmarshalText(b) != nil || text != a {
			t.Fatalf("%v became %v by %q", a, text, b)
		}
		b, err = a.MarshalBinary()
		if err != nil || len(b) != AddressLen || binary.UnmarshalBinary(b) != nil || binary != a {
			t.Fatalf("%v became %v by %x", a, binary, b)
		}
		if binary.UnmarshalBinary(b[1:]) == nil || binary.UnmarshalBinary(append(b, 0)) == nil {
			t.Fatalf("an address of another length is accepted")
		}
	})
}

func TestAddressText(t *testing.T) {
	a := Address{PID: 7, Port: 8, AckPort: 9, Incarnation: 0xab}
	a.IP[10], a.IP[11], a.IP[12], a.IP[15] = 255, 255, 127, 1
	if got, want := a.String(), "(7:127.0.0.1/8/9#ab)"; got != want {
		t.Errorf("printed %q, want %q", got, want)
	}
	if e := a.Endpoint(); e.IP != a.IP || e.Port != 8 {
		t.Errorf("endpoint %v", e)
	}
	if !NoAddress.IsZero() || NoAddress.String() != "(none)" || a.IsZero() {
		t.Errorf("nobody prints as %q", NoAddress)
	}
	if got, err := ParseAddress("(7:127.0.0.1/8/9)"); err != nil || got.Incarnation != 0 || got.PID != 7 {
		t.Errorf("without incarnation: %v, error %v", got, err)
	}
	for _, c := range []struct{ text, want string }{
		{"", "parentheses missing"},
		{"7:127.0.0.1/8/9", "parentheses missing"},
		{"(7:127.0.0.1/8)", "wrong number of parts"},
		{"(127.0.0.1/8/9)", "wrong number of parts"},
		{"(x:127.0.0.1/8/9)", "pid is no 32-bit number"},
		{"(4294967296:127.0.0.1/8/9)", "pid is no 32-bit number"},
		{"(7:127.0.0/8/9)", "bad IP address"},
		{"(7:fe80::1%eth0/8/9)", "bad IP address"},
		{"(7:127.0.0.1/65536/9)", "bad port"},
		{"(7:127.0.0.1/8/-1)", "bad port"},
		{"(7:127.0.0.1/8/9#)", "bad incarnation"},
		{"(7:127.0.0.1/8/9#xyz)", "bad incarnation"},
	} {
		var b Address
		if err := b.UnmarshalText([]byte(c.text)); err == nil || !strings.Contains(err.Error(), c.want) || !b.IsZero() {
			t.Errorf("%q: %v, error %v, want %q", c.text, b, err, c.want)
		}
	}
}

// Compare is an order: total, antisymmetric, and equal only for equal addresses; incarnations come first.
func TestAddressCompare(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		list := []Address{drawAddress(t, "a"), drawAddress(t, "b"), drawAddress(t, "c")}
		slices.SortFunc(list, Address.Compare)
		for i := range list {
			for j := range list {
				c := list[i].Compare(list[j])
				if c != -list[j].Compare(list[i]) || (c == 0) != (list[i] == list[j]) || i < j && c > 0 {
					t.Fatalf("%v and %v compare %d", list[i], list[j], c)
				}
			}
		}
		if list[0].Incarnation > list[2].Incarnation {
			t.Fatalf("the older incarnation comes last: %v", list)
		}
	})
}

func member(i int) Address { return Address{PID: uint32(i), Incarnation: uint64(i) + 1} }

// Next is judged by a slow reference.
func TestViewNext(t *testing.T) {
	// rows: VIEW-04, VIEW-05, VIEW-06, VIEW-09, VIEW-12
	rapid.Check(t, func(t *rapid.T) {
		v := &View{Group: GroupIDOf("g"), ID: 3}
		for i := range rapid.IntRange(0, 6).Draw(t, "members") {
			v.Members = append(v.Members, member(i))
		}
		before, gone := slices.Clone(v.Members), map[Address]bool{}
		for _, i := range rapid.SliceOfN(rapid.IntRange(0, 8), 0, 4).Draw(t, "gone") {
			gone[member(i)] = true
		}
		var newcomers []Address
		for _, i := range rapid.SliceOfN(rapid.IntRange(0, 12), 0, 6).Draw(t, "newcomers") {
			newcomers = append(newcomers, member(i))
		}
		n := v.Next(9, gone, newcomers)
		var members, joined, left []Address
		for _, m := range before {
			if gone[m] {
				left = append(left, m)
			} else {
				members = append(members, m)
			}
		}
		for _, a := range newcomers {
			if !slices.Contains(members, a) {
				members, joined = append(members, a), append(joined, a)
			}
		}
		want := &View{Group: v.Group, ID: 9, Members: members, Joined: joined, Left: left}
		if !reflect.DeepEqual(n, want) || n.Size() != len(members) || !slices.Equal(v.Members, before) {
			t.Fatalf("%v, want %v", n, want)
		}
		for r, m := range members {
			if n.Rank(m) != Rank(r) || !n.Contains(m) {
				t.Fatalf("rank %d of member %d", n.Rank(m), r)
			}
		}
	})
}

func TestViewText(t *testing.T) {
	// rows: VIEW-11
	v := &View{ID: 2, Members: []Address{member(1), member(2)}}
	v.Joined, v.Left = []Address{member(2)}, []Address{member(0)}
	want := fmt.Sprintf("view 2: 2 members [%v %v] joined [%v] left [%v]", member(1), member(2), member(2), member(0))
	if got := v.String(); got != want {
		t.Errorf("printed %q, want %q", got, want)
	}
	if r := v.Rank(member(0)); r != NoRank || v.Contains(member(0)) {
		t.Errorf("rank %d of a stranger", r)
	}
}

func TestViewBinary(t *testing.T) {
	v := &View{Group: GroupIDOf("g"), ID: 5, Members: []Address{member(1), member(2)}, Left: []Address{member(3)}}
	b, err := v.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	var got View
	if err := got.UnmarshalBinary(b); err != nil || !reflect.DeepEqual(&got, v) {
		t.Errorf("%v became %v, error %v", v, &got, err)
	}
	for n := range b {
		if got.UnmarshalBinary(b[:n]) == nil {
			t.Errorf("cut off after %d of %d bytes, and accepted", n, len(b))
		}
	}
	for _, bad := range []*View{
		{Members: []Address{member(1), member(1)}}, {Members: []Address{member(1), NoAddress}},
	} {
		b, _ := bad.MarshalBinary()
		if got.UnmarshalBinary(b) == nil {
			t.Errorf("members %v are accepted", bad.Members)
		}
	}
	if got.UnmarshalBinary(append(b, 0)) == nil {
		t.Error("a byte left over is accepted")
	}
	many := AppendAddresses(nil, make([]Address, MembersMax+1))
	if _, _, err := DecodeAddresses(many); err == nil {
		t.Errorf("a list of more than %d addresses is accepted", MembersMax)
	}
}

func TestNames(t *testing.T) {
	// rows: GRP-02
	if got, want := GroupIDOf("a").String(), "ca978112ca1bbdcafac231b39a23dc4d"; got != want {
		t.Errorf("the identifier of a is %s, must be %s on every machine", got, want)
	}
	if GroupIDOf("a") == GroupIDOf("b") || GroupIDOf("a").Short()&1 == 0 {
		t.Error("two names have one identifier, or a short form is even")
	}
	want := []string{"UnorderedSend", "Send", "CausalSend", "OrderedSend", "SafeSend", "RawSend", "Flavour(6)"}
	for f := Unordered; f <= flavours; f++ {
		if f.String() != want[f] || f.Valid() != (f < flavours) || f.Ordered() != (f == Total || f == Safe) {
			t.Errorf("flavour %d: %q, valid %v, ordered %v", f, f, f.Valid(), f.Ordered())
		}
	}
}

func FuzzView(f *testing.F) {
	v := &View{ID: 5, Members: []Address{member(1), member(2)}, Left: []Address{member(3)}}
	b, _ := v.MarshalBinary()
	f.Add(b)
	f.Add(b[:30])
	f.Fuzz(func(t *testing.T, b []byte) {
		var v View
		rest, err := v.Decode(b)
		if err != nil {
			return
		}
		again, _ := v.MarshalBinary()
		if string(again) != string(b[:len(b)-len(rest)]) {
			t.Fatalf("%x became %x", b, again)
		}
		for r, m := range v.Members {
			if v.Rank(m) != Rank(r) {
				t.Fatalf("member %d has the rank %d", r, v.Rank(m))
			}
		}
	})
}

func FuzzParseAddress(f *testing.F) {
	f.Add("(none)")
	f.Add("(7:127.0.0.1/8/9#ab)")
	f.Add("(7:::ffff:127.0.0.1/8/9)")
	f.Fuzz(func(t *testing.T, s string) {
		a, err := ParseAddress(s)
		if err != nil {
			return
		}
		if b, err := ParseAddress(a.String()); err != nil || a != b {
			t.Fatalf("%q is %v, which is read as %v, error %v", s, a, b, err)
		}
	})
}
