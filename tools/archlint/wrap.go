package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// wrapTree breaks the comment lines of the module that are over the limit. Lines within it stay as they are.
func wrapTree(root string, out io.Writer) error {
	t, err := loadTree(root)
	if err != nil {
		return err
	}
	for _, src := range t.files {
		if src.generated {
			continue
		}
		text := wrapComments(src.text)
		if bytes.Equal(text, src.text) {
			continue
		}
		if err := os.WriteFile(filepath.Join(root, filepath.FromSlash(src.path)), text, 0o644); err != nil {
			return err
		}
		fmt.Fprintln(out, src.path)
	}
	return nil
}

// prose matches a comment line of running text: indentation, slashes, one space, and no list, table or code.
var prose = regexp.MustCompile(`^(\t*)// ([^ \t\-*|#].*)$`)

// wrapComments moves the words that stand too far right to the front of the next line, when that goes on with the same
// paragraph, or else to a line of their own.
func wrapComments(text []byte) []byte {
	lines := strings.Split(string(text), "\n")
	for i := 0; i < len(lines); i++ {
		match := prose.FindStringSubmatch(lines[i])
		if match == nil || width([]byte(lines[i])) <= lineColumns || unbreakable(lines[i]) {
			continue
		}
		lead := match[1] + "// "
		keep, rest := breakLine(lines[i], len(lead))
		if rest == "" {
			continue
		}
		lines[i] = keep
		if i+1 < len(lines) && strings.HasPrefix(lines[i+1], lead) && prose.MatchString(lines[i+1]) {
			lines[i+1] = lead + rest + " " + lines[i+1][len(lead):]
			continue
		}
		lines = append(lines[:i+1], append([]string{lead + rest}, lines[i+1:]...)...)
	}
	return []byte(strings.Join(lines, "\n"))
}

// breakLine cuts a line at the last space that leaves it within the limit, behind its first from bytes.
func breakLine(line string, from int) (keep, rest string) {
	for at := len(line) - 1; at > from; at-- {
		if line[at] == ' ' && width([]byte(line[:at])) <= lineColumns {
			return line[:at], line[at+1:]
		}
	}
	return line, ""
}
