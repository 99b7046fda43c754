package main

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/modfile"
)

// tree is the source of one module, parsed.
type tree struct {
	root   string // directory of go.mod
	module string // the module's path
	fset   *token.FileSet
	files  []*source
}

// source is one Go file of the module, whatever its build constraints.
type source struct {
	path      string // below the root, with forward slashes
	dir       string // the package's directory below the root, "." for the root itself
	test      bool
	generated bool
	text      []byte
	syntax    *ast.File
	fset      *token.FileSet
}

// at makes a finding at a position of the file.
func (s *source) at(pos token.Pos, rule, format string, args ...any) finding {
	return finding{file: s.path, line: s.line(pos), rule: rule, text: fmt.Sprintf(format, args...)}
}

// line returns the line of a position, ignoring //line directives.
func (s *source) line(pos token.Pos) int { return s.fset.PositionFor(pos, false).Line }

// imported is one import of a file.
type imported struct {
	path string
	name string // the name it goes by in the file; "." and "_" as written
	pos  token.Pos
}

// imports lists the file's imports. The name of an import without one is the last element of its path, before any
// version.
func (s *source) imports() []imported {
	var list []imported
	for _, spec := range s.syntax.Imports {
		path, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			continue // the parser has reported it
		}
		imp := imported{path: path, pos: spec.Pos()}
		if spec.Name != nil {
			imp.name = spec.Name.Name
		} else {
			base := strings.TrimSuffix(path, "/v2")
			imp.name = base[strings.LastIndexByte(base, '/')+1:]
		}
		list = append(list, imp)
	}
	return list
}

// loadTree parses every Go file below root, except in directories that the go command leaves out as well.
func loadTree(root string) (*tree, error) {
	mod, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		return nil, fmt.Errorf("no module at %s: %w", root, err)
	}
	t := &tree{root: root, module: modfile.ModulePath(mod), fset: token.NewFileSet()}
	if t.module == "" {
		return nil, errors.New("go.mod names no module")
	}
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			return t.enter(path, d.Name())
		}
		if strings.HasSuffix(path, ".go") && !ignored(d.Name()) {
			return t.parse(path)
		}
		return nil
	})
	return t, err
}

// enter decides whether the walk goes into a directory.
func (t *tree) enter(path, name string) error {
	if path == t.root {
		return nil
	}
	if ignored(name) || name == "testdata" || name == "vendor" {
		return fs.SkipDir
	}
	if _, err := os.Stat(filepath.Join(path, "go.mod")); err == nil {
		return fs.SkipDir // another module
	}
	return nil
}

// ignored tells whether the go command leaves out a file or directory of this name.
func ignored(name string) bool { return strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_") }

func (t *tree) parse(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	rel, err := filepath.Rel(t.root, path)
	if err != nil {
		return err
	}
	rel = filepath.ToSlash(rel)
	syntax, err := parser.ParseFile(t.fset, rel, text, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	t.files = append(t.files, &source{
		path:      rel,
		dir:       filepath.ToSlash(filepath.Dir(rel)),
		test:      strings.HasSuffix(rel, "_test.go"),
		generated: ast.IsGenerated(syntax),
		text:      text,
		syntax:    syntax,
		fset:      t.fset,
	})
	return nil
}
