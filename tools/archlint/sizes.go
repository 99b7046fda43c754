package main

import (
	"bytes"
	"fmt"
	"go/ast"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"
)

// The limits, each the largest allowed value.
const (
	functionLines = 70
	fileLines     = 500
	lineColumns   = 120
	parameters    = 5

	tabColumns = 4 // what a tab counts for
)

// size is one measured thing: what kind it is, where it stands, and how big it is. Kind and place together name it in
// the ratchet.
type size struct {
	kind  string // "function", "file", "line", "parameters"
	place string // file, or file:function
	line  int
	n     int
	limit int
}

// key names the thing in the ratchet.
func (s size) key() string { return s.kind + " " + s.place }

// checkSizes reports what is over a limit and not in the ratchet, and what the ratchet gets wrong: it may only shrink.
// Generated files are free. Literal tables in tests do not count, nor do switches with one call per case.
func checkSizes(t *tree, r ratchet) []finding {
	over := map[string]size{}
	for _, src := range t.files {
		if src.generated {
			continue
		}
		for _, s := range measure(src) {
			if s.n > s.limit && s.n > over[s.key()].n {
				over[s.key()] = s
			}
		}
	}
	var all []finding
	for _, key := range slices.Sorted(maps.Keys(over)) {
		s := over[key]
		file, _, _ := strings.Cut(s.place, ":")
		allowed := r.numbers[key]
		if s.n > max(s.limit, allowed) {
			all = append(all, finding{file: file, line: s.line, rule: ruleSizes, text: s.complain(allowed)})
		}
	}
	return append(all, r.check(over)...)
}

// complain says what is too big, and by what measure.
func (s size) complain(allowed int) string {
	if allowed > 0 {
		return fmt.Sprintf("%s grew to %d, and the ratchet holds it at %d", s.key(), s.n, allowed)
	}
	_, name, _ := strings.Cut(s.place, ":")
	switch s.kind {
	case "function":
		return fmt.Sprintf("%s has %d lines, the limit is %d", name, s.n, s.limit)
	case "parameters":
		return fmt.Sprintf("%s takes %d parameters, the limit is %d", name, s.n, s.limit)
	case "line":
		return fmt.Sprintf("line of %d columns, the limit is %d", s.n, s.limit)
	}
	return fmt.Sprintf("file of %d lines, the limit is %d", s.n, s.limit)
}

// measure returns the sizes of everything in one file. Lines are named by their number, so that each is found.
func measure(src *source) []size {
	tables := tableLines(src)
	lines := bytes.Count(src.text, []byte("\n"))
	all := []size{{kind: "file", place: src.path, line: 1, n: lines - len(tables), limit: fileLines}}
	for i, text := range bytes.Split(src.text, []byte("\n")) {
		if columns := width(text); columns > lineColumns && !unbreakable(string(text)) {
			place := fmt.Sprintf("%s:%d", src.path, i+1)
			all = append(all, size{kind: "line", place: place, line: i + 1, n: columns, limit: lineColumns})
		}
	}
	for _, decl := range src.syntax.Decls {
		fn, ok := decl.(*ast.FuncDecl)
		if !ok {
			continue
		}
		place, line := src.path+":"+functionName(fn), src.line(fn.Pos())
		all = append(all,
			size{kind: "function", place: place, line: line, n: functionLength(src, fn, tables), limit: functionLines},
			size{kind: "parameters", place: place, line: line, n: fn.Type.Params.NumFields(), limit: parameters})
	}
	return all
}

// width returns the columns that a line takes.
func width(text []byte) int {
	tabs := bytes.Count(text, []byte("\t"))
	return utf8.RuneCount(text) + tabs*(tabColumns-1)
}

// unbreakable tells whether a line may be long: compiler directives and lone links.
func unbreakable(text string) bool {
	text = strings.TrimSpace(text)
	if strings.HasPrefix(text, "//go:") || strings.HasSuffix(text, "`") && strings.Count(text, "`") == 2 {
		return true // a directive, or a field with its tag
	}
	text = strings.TrimSpace(strings.TrimPrefix(text, "//"))
	return strings.Contains(text, "://") && !strings.Contains(text, " ")
}

// functionName returns "Name" or "Type.Name".
func functionName(fn *ast.FuncDecl) string {
	if fn.Recv == nil || len(fn.Recv.List) == 0 {
		return fn.Name.Name
	}
	recv := fn.Recv.List[0].Type
	for {
		switch t := recv.(type) {
		case *ast.StarExpr:
			recv = t.X
		case *ast.IndexExpr:
			recv = t.X
		case *ast.IndexListExpr:
			recv = t.X
		case *ast.Ident:
			return t.Name + "." + fn.Name.Name
		default:
			return fn.Name.Name
		}
	}
}

// functionLength returns the lines from "func" to the last brace, without tables and dispatching switches.
func functionLength(src *source, fn *ast.FuncDecl, tables map[int]bool) int {
	free := map[int]bool{}
	first, last := src.line(fn.Pos()), src.line(fn.End())
	if fn.Body != nil {
		for _, stmt := range fn.Body.List {
			if dispatches(src, stmt) {
				for line := src.line(stmt.Pos()); line <= src.line(stmt.End()); line++ {
					free[line] = true
				}
			}
		}
	}
	n := 0
	for line := first; line <= last; line++ {
		if !tables[line] && !free[line] {
			n++
		}
	}
	return n
}

// dispatches tells whether a statement is a switch in which each case is one line.
func dispatches(src *source, stmt ast.Stmt) bool {
	var body *ast.BlockStmt
	switch s := stmt.(type) {
	case *ast.SwitchStmt:
		body = s.Body
	case *ast.TypeSwitchStmt:
		body = s.Body
	default:
		return false
	}
	for _, stmt := range body.List {
		clause := stmt.(*ast.CaseClause)
		if len(clause.Body) > 1 {
			return false
		}
		for _, only := range clause.Body {
			if src.line(only.Pos()) != src.line(only.End()) {
				return false
			}
		}
	}
	return true
}

// tableLines returns the lines that belong to the inside of literal slices, arrays and maps of a test.
func tableLines(src *source) map[int]bool {
	lines := map[int]bool{}
	if !src.test {
		return lines
	}
	ast.Inspect(src.syntax, func(n ast.Node) bool {
		lit, ok := n.(*ast.CompositeLit)
		if !ok {
			return true
		}
		switch lit.Type.(type) {
		case *ast.ArrayType, *ast.MapType:
		default:
			return true
		}
		if holdsFunctions(lit) {
			return true // a table of functions is code
		}
		for line := src.line(lit.Lbrace) + 1; line < src.line(lit.Rbrace); line++ {
			lines[line] = true
		}
		return false
	})
	return lines
}

// holdsFunctions tells whether a literal holds function literals of more than a few lines.
func holdsFunctions(lit *ast.CompositeLit) bool {
	found := false
	ast.Inspect(lit, func(n ast.Node) bool {
		if fn, ok := n.(*ast.FuncLit); ok && len(fn.Body.List) > 3 {
			found = true
		}
		return !found
	})
	return found
}
