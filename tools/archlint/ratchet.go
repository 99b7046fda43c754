package main

import (
	"bufio"
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// ratchetFile is where the exceptions stand, below the module's root.
const ratchetFile = "tools/archlint/ratchet.txt"

// ratchet lists what is over a limit and lived before the limit did, with its size of today. Each line reads
// "kind place number", such as "function vsync/group.go:Group.Join 84". It may only shrink: a number that is no longer
// true is a finding, so whoever makes something smaller turns the ratchet on.
type ratchet struct {
	path    string
	numbers map[string]int // by size.key
	lines   map[string]int // line of each key in the file
}

// loadRatchet reads the exceptions of a tree; none is no error.
func loadRatchet(root string) (ratchet, error) {
	r := ratchet{path: ratchetFile, numbers: map[string]int{}, lines: map[string]int{}}
	text, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(ratchetFile)))
	if os.IsNotExist(err) {
		return r, nil
	}
	if err != nil {
		return r, err
	}
	scan := bufio.NewScanner(bytes.NewReader(text))
	for n := 1; scan.Scan(); n++ {
		line := strings.TrimSpace(scan.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		fields := strings.Fields(line)
		if len(fields) != 3 {
			return r, fmt.Errorf("%s:%d: want three fields, kind place number", ratchetFile, n)
		}
		number, err := strconv.Atoi(fields[2])
		if err != nil || number <= 0 {
			return r, fmt.Errorf("%s:%d: %q is not a size", ratchetFile, n, fields[2])
		}
		key := fields[0] + " " + fields[1]
		if r.lines[key] != 0 {
			return r, fmt.Errorf("%s:%d: %s is listed twice", ratchetFile, n, key)
		}
		r.numbers[key], r.lines[key] = number, n
	}
	return r, scan.Err()
}

// check reports entries that say more than the tree does: the thing shrank, or is within the limit now, or is gone.
func (r ratchet) check(over map[string]size) []finding {
	var all []finding
	for _, key := range slices.Sorted(maps.Keys(r.numbers)) {
		var text string
		switch s, still := over[key]; {
		case !still:
			text = fmt.Sprintf("%s is within the limit or gone: remove it", key)
		case s.n < r.numbers[key]:
			text = fmt.Sprintf("%s has shrunk to %d: write that down", key, s.n)
		default:
			continue
		}
		all = append(all, finding{file: r.path, line: r.lines[key], rule: ruleSizes, text: text})
	}
	return all
}
