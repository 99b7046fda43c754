package main

import (
	"bytes"
	"strings"
	"testing"
)

const before = `goos: linux
pkg: example.org/a/ring
BenchmarkPush-2   	 100	 10.0 ns/op	 16 B/op	 1 allocs/op
BenchmarkPush-2   	 100	 11.0 ns/op	 16 B/op	 1 allocs/op
BenchmarkPush-2   	 100	 12.0 ns/op	 16 B/op	 1 allocs/op
BenchmarkPush-2   	 100	 13.0 ns/op	 16 B/op	 1 allocs/op
BenchmarkGone-2   	 100	 5.0 ns/op
BenchmarkFew-2    	 100	 5.0 ns/op
PASS
`

const after = `pkg: example.org/a/ring
BenchmarkPush-2   	 100	 5.0 ns/op	 0 B/op	 1 allocs/op
BenchmarkPush-2   	 100	 5.5 ns/op	 0 B/op	 1 allocs/op
BenchmarkPush-2   	 100	 6.0 ns/op	 0 B/op	 1 allocs/op
BenchmarkPush-2   	 100	 6.5 ns/op	 0 B/op	 1 allocs/op
BenchmarkFew-2    	 100	 500.0 ns/op
BenchmarkFresh-2  	 100	 123456 ns/op
`

func TestCompare(t *testing.T) {
	old, err := parse(strings.NewReader(before))
	if err != nil {
		t.Fatal(err)
	}
	fresh, err := parse(strings.NewReader(after))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := compare(old, fresh, &out); err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.Lines(out.String()) {
		got = append(got, strings.Join(strings.Fields(line), " "))
	}
	want := []string{
		"benchmark unit before after change",
		"ring.Push-2 ns/op 11.5 5.75 -50.0%",
		"ring.Push-2 B/op 16 0 -100.0%",
		"ring.Push-2 allocs/op 1 1 ~",
		"ring.Gone-2 ns/op 5 - gone",
		"ring.Few-2 ns/op 5 500 ~",
		"ring.Fresh-2 ns/op - 123456 new",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestChangeNeedsClearRanges(t *testing.T) {
	tests := []struct {
		name          string
		before, after []float64
		want          string
	}{
		{"apart", []float64{1, 2, 2, 2}, []float64{4, 4, 4, 5}, "+100.0%"},
		{"overlap", []float64{1, 2, 2, 5}, []float64{4, 4, 4, 5}, "~"},
		{"touch", []float64{1, 2, 2, 4}, []float64{4, 4, 4, 5}, "~"},
		{"from nothing", []float64{0, 0, 0, 0}, []float64{1, 1, 1, 1}, "from 0"},
	}
	for _, tt := range tests {
		if got := change(tt.before, tt.after); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.name, got, tt.want)
		}
	}
}

func TestParseRefusesDamage(t *testing.T) {
	if _, err := parse(strings.NewReader("BenchmarkPush 100 fast ns/op\n")); err == nil {
		t.Error("a value that is no number was accepted")
	}
}
