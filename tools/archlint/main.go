// Archlint holds the module to the plan of its house. It checks
//
//   - arrows: imports run downwards, rooms of one floor do not see each other, and every package has a room (house.go);
//   - purity: protocol machines read no clock, start no goroutine, draw no random number of the process, touch no
//     socket, file or lock, and do not range over maps unless the line says "// order-free: reason";
//   - sizes: functions, files, lines and parameter lists have limits, with exceptions in ratchet.txt that only shrink;
//   - state: no package variable that anybody could change, unless marked "// immutable: reason";
//   - words: no path of one machine and no note to self in committed text.
//
// It prints one line per finding, "file:line: text [rule]", and exits with status 1 when there is any.
//
//	go run ./tools/archlint [-root directory]
//	go run ./tools/archlint -wrap
//
// The second form breaks the lines of comments that are too long, and prints the files that it changed.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

func main() {
	root := flag.String("root", ".", "directory of the module's go.mod")
	wrap := flag.Bool("wrap", false, "break the lines of comments that are too long")
	flag.Parse()
	if *wrap {
		if err := wrapTree(*root, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "archlint:", err)
			os.Exit(2)
		}
		return
	}
	clean, err := run(*root, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "archlint:", err)
		os.Exit(2)
	}
	if !clean {
		os.Exit(1)
	}
}

// run checks the module at root, prints what it finds, and tells whether that was nothing.
func run(root string, out io.Writer) (clean bool, err error) {
	all, files, err := lint(root)
	if err != nil {
		return false, err
	}
	for _, f := range all {
		fmt.Fprintln(out, f)
	}
	fmt.Fprintf(out, "archlint: %d Go files, %d findings\n", files, len(all))
	return len(all) == 0, nil
}

// lint returns all findings of the module at root, ordered by place, and the number of Go files it read.
func lint(root string) (all []finding, files int, err error) {
	root, err = filepath.Abs(root)
	if err != nil {
		return nil, 0, err
	}
	if root, err = filepath.EvalSymlinks(root); err != nil {
		return nil, 0, err
	}
	t, err := loadTree(root)
	if err != nil {
		return nil, 0, err
	}
	r, err := loadRatchet(root)
	if err != nil {
		return nil, 0, err
	}
	all = append(all, checkArrows(t)...)
	all = append(all, checkPurity(t)...)
	all = append(all, checkSizes(t, r)...)
	all = append(all, checkState(t)...)
	words, err := checkWords(root)
	if err != nil {
		return nil, 0, err
	}
	all = append(all, words...)
	loops, err := checkMapRanges(t)
	if err != nil {
		return nil, 0, err
	}
	all = append(all, loops...)
	sortFindings(all)
	return all, len(t.files), nil
}
