package main

import (
	"strings"
	"testing"
)

func TestWrapComments(t *testing.T) {
	words := func(n int) string { return strings.TrimSuffix(strings.Repeat("word ", n), " ") }
	long := words(23) + " end" // 118 columns, and 121 behind slashes
	tests := []struct{ name, text, want string }{
		{"short", "// a\n// b\n", "// a\n// b\n"},
		{"into the next line", "// " + long + "\n// next\n", "// " + words(23) + "\n// end next\n"},
		{"on a line of its own", "// " + long + "\nfunc f() {}\n",
			"// " + words(23) + "\n// end\nfunc f() {}\n"},
		{"not into a list", "// " + long + "\n// - next\n", "// " + words(23) + "\n// end\n// - next\n"},
		{"not into another paragraph", "// " + long + "\n//\n// next\n",
			"// " + words(23) + "\n// end\n//\n// next\n"},
		{"not into a directive", "// " + long + "\n//go:noinline\n",
			"// " + words(23) + "\n// end\n//go:noinline\n"},
		{"on and on", "// " + long + "\n// " + words(23) + "\n// next\n",
			"// " + words(23) + "\n// end " + words(22) + "\n// word next\n"},
		{"code", "x := 1 // " + long + "\n", "x := 1 // " + long + "\n"},
		{"one word", "// " + strings.Repeat("x", 130) + "\n", "// " + strings.Repeat("x", 130) + "\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := string(wrapComments([]byte(tt.text))); got != tt.want {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
		})
	}
}
