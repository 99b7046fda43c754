package xfer

import (
	"bytes"
	"errors"
	"testing"

	"github.com/khamsin-io/khamsin/vsync/core"
	"github.com/khamsin-io/khamsin/vsync/internal/pdu"
)

func TestPieces(t *testing.T) {
	for _, c := range []struct {
		view core.ViewID
		mark Mark
		data string
	}{{1, More, "piece"}, {1 << 40, Last, ""}, {7, Last, "end"}, {3, Aborted, ""}} {
		view, mark, data, err := Decode(Encode(c.view, c.mark, []byte(c.data)))
		if err != nil || view != c.view || mark != c.mark || string(data) != c.data {
			t.Errorf("%+v became view %d mark %d %q, error %v", c, view, mark, data, err)
		}
	}
	for _, b := range [][]byte{nil, {1}, {0x80}, {1, byte(Aborted) + 1}, {0x80, 0}} {
		if _, _, _, err := Decode(b); !errors.Is(err, pdu.ErrMalformed) {
			t.Errorf("%x: error %v", b, err)
		}
	}
}

// A joiner takes only what its sender took at the view it was told to begin from.
func TestAccepts(t *testing.T) {
	in := &Incoming{Source: core.Address{PID: 1, Incarnation: 9}, View: 4}
	for _, c := range []struct {
		name string
		in   *Incoming
		from uint64
		view core.ViewID
		want bool
	}{
		{"its own", in, 9, 4, true},
		{"of another sender", in, 8, 4, false},
		{"of the view before", in, 9, 3, false},
		{"of the view after", in, 9, 5, false},
		{"nothing is under way", nil, 9, 4, false},
		{"the sender is gone", &Incoming{View: 4}, 9, 4, false},
	} {
		if got := c.in.Accepts(c.from, c.view); got != c.want {
			t.Errorf("a piece that is %s: accepted %v", c.name, got)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte{})
	f.Add(Encode(5, More, []byte("data")))
	f.Add(Encode(1<<50, Aborted, nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		view, mark, data, err := Decode(b)
		if err != nil {
			return
		}
		view2, mark2, data2, err := Decode(Encode(view, mark, data))
		if err != nil || view != view2 || mark != mark2 || !bytes.Equal(data, data2) {
			t.Fatalf("%x: view %d became %d, mark %d became %d, error %v", b, view, view2, mark, mark2, err)
		}
	})
}
