package codec_test

import (
	"reflect"
	"sync"
	"testing"

	"github.com/khamsin-io/khamsin/vsync/codec"
)

// Everything but registration may be done by many goroutines at once, and the first use by all of them freezes once.
func TestManyGoroutines(t *testing.T) {
	r := codec.NewRegistry()
	if err := codec.Register[First](r, 1); err != nil {
		t.Fatal(err)
	}
	if err := codec.Register[Level](r, 2); err != nil {
		t.Fatal(err)
	}
	pair := codec.Pair[Level, []First]{Key: 1, Value: []First{{4}}}
	vals := []any{First{1}, []*First{{2}}, Level(3), pair, [2]string{"a", "b"}}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				b, err := r.Marshal(vals...)
				if err != nil {
					t.Error(err)
					return
				}
				back, err := r.UnmarshalAny(b)
				if err != nil || !reflect.DeepEqual(back[:3], vals[:3]) {
					t.Error(back, err)
				}
				var p codec.Pair[Level, []First]
				if err := r.Unmarshal(b, new(First), new([]*First), new(Level), &p, new([2]string)); err != nil {
					t.Error(err)
				}
				if _, err := r.SignatureOf(func(First, []codec.Pair[First, int]) {}); err != nil {
					t.Error(err)
				}
				if n, err := r.Size(vals...); err != nil || n != len(b) {
					t.Error(n, err)
				}
				if _, err := r.Types(b); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}
