package codec_test

import (
	"errors"
	"reflect"
	"testing"

	"github.com/khamsin-io/khamsin/vsync/codec"
)

// rows: MSG-07
func TestColumnsOfReplies(t *testing.T) {
	r := newRegistry(t)
	replies := [][]byte{
		mustMarshal(t, r, "ann", 31, []Line{{"a", 1, 1}}),
		mustMarshal(t, r, "bob", 32, []Line(nil)),
		mustMarshal(t, r, "cid", 33, []Line{}),
	}
	var names []string
	var ages []int
	var lines [][]Line
	if err := r.Columns(replies, &names, &ages, &lines); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(names, []string{"ann", "bob", "cid"}) || !reflect.DeepEqual(ages, []int{31, 32, 33}) ||
		!reflect.DeepEqual(lines, [][]Line{{{"a", 1, 1}}, nil, {}}) {
		t.Fatal(names, ages, lines)
	}
	if err := r.Columns(nil, &names, &ages); err != nil || len(names) != 0 || len(ages) != 0 {
		t.Fatal(names, ages, err)
	}
}

func TestColumnsNameTheReplyAtFault(t *testing.T) {
	r := newRegistry(t)
	replies := [][]byte{mustMarshal(t, r, "ann", 31), mustMarshal(t, r, "bob", "old")}
	names := []string{"kept"}
	var ages []int
	var reply *codec.ReplyError
	var typ *codec.TypeError
	err := r.Columns(replies, &names, &ages)
	if !errors.As(err, &reply) || reply.Index != 1 || !errors.As(err, &typ) || typ.Index != 1 {
		t.Fatal(err)
	}
	if names[0] != "kept" || ages != nil {
		t.Fatal("the columns were touched")
	}
	for _, bad := range []any{nil, ages, new(int), (*[]int)(nil)} {
		if err := r.Columns(replies, &names, bad); !errors.Is(err, codec.ErrUncodable) {
			t.Errorf("%T: %v", bad, err)
		}
	}
}

// Each yields once for each reply, faulty or not, so that the turn tells the sender.
func TestEachReply(t *testing.T) {
	r := newRegistry(t)
	one, two, three := mustMarshal(t, r, 1), mustMarshal(t, r, "two"), mustMarshal(t, r, 3, 3)
	replies := [][]byte{one, two, three, nil, mustMarshal(t, r, 5)}
	var got []int
	var faults []int
	for v, err := range codec.Each[int](r, replies) {
		got = append(got, v)
		var e *codec.ReplyError
		if errors.As(err, &e) {
			faults = append(faults, e.Index)
		}
	}
	if !reflect.DeepEqual(got, []int{1, 0, 0, 0, 5}) || !reflect.DeepEqual(faults, []int{1, 2, 3}) {
		t.Fatal(got, faults)
	}
	for v := range codec.Each[int](r, replies) {
		if v != 1 {
			t.Fatal(v)
		}
		break
	}
}
