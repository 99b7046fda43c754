package main

import (
	"strings"
	"testing"
)

const profile = `mode: set
m/a/x.go:1.2,3.4 6 1
m/a/x.go:5.1,6.1 4 0
m/a/x.go:5.1,6.1 4 2
m/b/y.go:1.2,3.4 8 1
m/b/y.go:4.2,5.4 2 0
m/host/z.go:1.2,3.4 90 0
`

func TestCover(t *testing.T) {
	for _, c := range []struct {
		name, profile string
		least         float64
		not           []string
		want          string // of the error; empty: none
	}{
		{"a statement that one binary ran", profile, 80, []string{"host"}, ""},
		{"a package below", profile, 81, []string{"host"}, "below 81 % of statements: m/b"},
		{"nothing left out", profile, 80, nil, "below 80 % of statements: m/host, all"},
		{"no limit", profile, 0, []string{""}, ""},
		{"nothing at all", "mode: set\n", 0, nil, "no statement"},
		{"no profile", "hello\n", 0, nil, "line 1"},
		{"no numbers", "mode: set\nm/a/x.go:1.2,3.4 six 1\n", 0, nil, "line 2"},
	} {
		var out strings.Builder
		err := run(strings.NewReader(c.profile), &out, c.least, c.not)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", c.name, err, c.want)
		}
	}
	var out strings.Builder
	_ = run(strings.NewReader(profile), &out, 0, []string{"host"})
	want := "100.0 % of    10  m/a\n 80.0 % of    10  m/b\n 90.0 % of    20  all\n"
	if out.String() != want {
		t.Errorf("printed\n%s, want\n%s", out.String(), want)
	}
}
