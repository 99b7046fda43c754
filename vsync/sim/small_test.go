package sim

import (
	"strings"
	"testing"
)

func TestSmallBase(t *testing.T) {
	for _, name := range SmallChanges() {
		r := PlaySmallWorld(SmallWorld{Change: name}, nil)
		t.Log(r.World, r.Result.String(), r.steps, len(r.Next()))
		if r.Failed() {
			var b strings.Builder
			r.Report(&b)
			t.Error(b.String())
		}
		n := 0
		for i, s := range r.Next() {
			if i%10 == 0 {
				r2 := PlaySmallWorld(s, nil)
				n += len(r2.Next())
				if r2.Failed() {
					var b strings.Builder
					r2.Report(&b)
					t.Error(s.String(), b.String())
				}
			}
		}
		t.Log("about", n*10)
	}
}
