package sim

import (
	"strings"
	"testing"
)

// One crash at every step of a change of view, and some of the second ones. `make exhaustive` plays them all.
//
// rows: VIEW-12, VIEW-13, MC-16, XFR-12
func TestSmallWorldsKeepEveryGuarantee(t *testing.T) {
	every := 23
	if testing.Short() {
		every = 97
	}
	judge := func(r *SmallResult) {
		if r.Failed() {
			var b strings.Builder
			r.Report(&b)
			t.Fatalf("%v: %s", r.World, b.String())
		}
	}
	for _, change := range SmallChanges() {
		base := PlaySmallWorld(SmallWorld{Change: change}, "", nil)
		judge(base)
		ones := base.Next()
		if len(ones) < 60 {
			t.Fatalf("%s has only %d places for a crash", change, len(ones))
		}
		for i := 0; i < len(ones); i += every {
			one := PlaySmallWorld(ones[i], "", nil)
			judge(one)
			twos := one.Next()
			for j := i % 101; j < len(twos); j += 101 {
				judge(PlaySmallWorld(twos[j], "", nil))
			}
		}
	}
}

// Every place of a crash is one where it happens: the process is over, and the run was another one than that with the
// step before.
func TestSmallCrashesHappenWhereTheyAreNamed(t *testing.T) {
	base := PlaySmallWorld(SmallWorld{Change: "leave"}, "", nil)
	seen := map[uint64]string{base.TraceHash: "no crash"}
	for _, s := range base.Next() {
		if s.Crashes[0].Lost > 0 {
			continue // there may be no packet among the last steps
		}
		r := PlaySmallWorld(s, "", nil)
		if other, ok := seen[r.TraceHash]; ok {
			t.Errorf("%v and %s are the same run", s, other)
		}
		seen[r.TraceHash] = s.String()
	}
	if len(seen) < 70 {
		t.Errorf("only %d worlds", len(seen))
	}
}

func TestSmallWorldNames(t *testing.T) {
	want := SmallWorld{"leave", []SmallCrash{{2, 17, 0, 0}, {1, 30, 6, 0}, {3, 2, 6, 1}}}
	got, err := ParseSmallWorld(want.String())
	if err != nil || got.String() != want.String() || want.String() != "leave/2:17/1:30-6/3:2-6>1" {
		t.Fatalf("%v is read as %v: %v", want, got, err)
	}
	for _, bad := range []string{"", "dance", "leave/", "leave/2", "leave/x:1", "leave/1:0", "leave/1:2-x",
		"leave/0:1", "leave/1:2>3", "leave/1:2-6>0"} {
		if _, err := ParseSmallWorld(bad); err == nil {
			t.Errorf("%q was not refused", bad)
		}
	}
}
