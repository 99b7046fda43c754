package main

import (
	"bytes"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// evidence is one place that says it shows a row.
type evidence struct {
	row      string
	file     string // below the module's root, with forward slashes
	line     int
	function string // of a Go file; empty when the comment stands outside of functions, or elsewhere
	document bool   // a page of docs
}

// kind says how a file names rows.
type kind int

const (
	noEvidence kind = iota
	goTest          // tests, packages of tests, examples
	goOther         // Go code that shows nothing
	story           // stories and scripts in testdata
	document        // pages of docs
)

// kindOf tells how a file names rows, by its path.
func kindOf(file string) kind {
	dirs := strings.Split(path.Dir(file), "/")
	inTestdata := slices.Contains(dirs, "testdata")
	switch ext := path.Ext(file); {
	case dirs[0] == "tools" || file == pagePath:
		return noEvidence
	case ext == ".go" && !inTestdata:
		inTestPackage := slices.ContainsFunc(dirs, func(dir string) bool { return strings.HasSuffix(dir, "test") })
		if strings.HasSuffix(file, "_test.go") || dirs[0] == "examples" || inTestPackage {
			return goTest
		}
		return goOther
	case inTestdata && slices.Contains([]string{".txt", ".txtar", ".sh", ".story"}, ext):
		return story
	case dirs[0] == "docs" && ext == ".md":
		return document
	}
	return noEvidence
}

// collect returns the evidence of all files below root. It reports every comment about rows that cannot be read or
// stands where it shows nothing.
func collect(root string) ([]evidence, error) {
	var found []evidence
	var errs []error
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name != root && (strings.HasPrefix(d.Name(), ".") || d.Name() == "vendor") {
				return fs.SkipDir
			}
			return nil
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		file := filepath.ToSlash(rel)
		k := kindOf(file)
		if k == noEvidence || !d.Type().IsRegular() {
			return nil
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		more, err := read(file, k, text)
		found, errs = append(found, more...), append(errs, err)
		return nil
	})
	return found, errors.Join(append(errs, err)...)
}

// read returns the evidence of one file.
func read(file string, k kind, text []byte) ([]evidence, error) {
	if !bytes.Contains(text, []byte("rows:")) {
		return nil, nil
	}
	if k == goTest || k == goOther {
		return readGo(file, k, text)
	}
	mark := storyMark
	if k == document {
		mark = documentMark
	}
	var found []evidence
	var errs []error
	for i, line := range strings.Split(string(text), "\n") {
		if match := mark.FindStringSubmatch(line); match != nil {
			more, err := parseNames(file, i+1, match[1])
			found, errs = append(found, more...), append(errs, err)
		}
	}
	for i := range found {
		found[i].document = k == document
	}
	return found, errors.Join(errs...)
}

// The comments that name rows, in each kind of file.
var (
	goMark       = regexp.MustCompile(`^//\s*rows:(.*)$`)
	storyMark    = regexp.MustCompile(`^\s*#\s*rows:(.*)$`)
	documentMark = regexp.MustCompile(`^\s*<!--\s*rows:(.*)-->\s*$`)
)

// readGo returns the evidence of one Go file, each with the function that it belongs to: the one whose comment or body
// it stands in.
func readGo(file string, k kind, text []byte) ([]evidence, error) {
	fset := token.NewFileSet()
	syntax, err := parser.ParseFile(fset, file, text, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	var found []evidence
	var errs []error
	for _, group := range syntax.Comments {
		for _, c := range group.List {
			match := goMark.FindStringSubmatch(c.Text)
			if match == nil {
				continue
			}
			line := fset.Position(c.Pos()).Line
			more, err := parseNames(file, line, match[1])
			if k == goOther {
				if err == nil {
					errs = append(errs, fmt.Errorf("%s:%d: only tests and examples show rows", file, line))
				}
				continue
			}
			for i := range more {
				more[i].function = functionAt(syntax, c.Pos())
			}
			found, errs = append(found, more...), append(errs, err)
		}
	}
	return found, errors.Join(errs...)
}

// functionAt returns the name of the function whose comment or body holds pos, or nothing.
func functionAt(file *ast.File, pos token.Pos) string {
	for _, decl := range file.Decls {
		fn, ok := decl.(*ast.FuncDecl)
		if !ok {
			continue
		}
		start := fn.Pos()
		if fn.Doc != nil {
			start = fn.Doc.Pos()
		}
		if start <= pos && pos < fn.End() {
			return fn.Name.Name
		}
	}
	return ""
}

// parseNames reads "MC-11, MC-12".
func parseNames(file string, line int, text string) ([]evidence, error) {
	var found []evidence
	for _, name := range strings.Split(text, ",") {
		name = strings.TrimSpace(name)
		if !rowID.MatchString(name) {
			return nil, fmt.Errorf("%s:%d: %q is not the name of a row, want for example MC-11", file, line, name)
		}
		found = append(found, evidence{row: name, file: file, line: line})
	}
	return found, nil
}
