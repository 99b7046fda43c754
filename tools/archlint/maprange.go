package main

import (
	"fmt"
	"go/ast"
	"go/types"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/tools/go/packages"
)

// orderFree is the mark on a line that ranges over a map without harm.
const orderFree = "order-free"

// checkMapRanges reports loops over maps in protocol machines: their order is drawn anew in every run. It needs types,
// so it loads those packages, with the costly assertions compiled in. A line with "// order-free: reason" is let
// through.
func checkMapRanges(t *tree) ([]finding, error) {
	byPath := map[string]*source{}
	var patterns []string
	for _, src := range t.files {
		if !deterministic(src.dir) || src.test {
			continue
		}
		byPath[src.path] = src
		if pattern := "./" + src.dir; !slices.Contains(patterns, pattern) {
			patterns = append(patterns, pattern)
		}
	}
	if len(patterns) == 0 {
		return nil, nil
	}
	pkgs, err := packages.Load(&packages.Config{
		Mode:       packages.LoadSyntax,
		Dir:        t.root,
		BuildFlags: []string{"-tags=khamsin_invariants"},
	}, patterns...)
	if err != nil {
		return nil, fmt.Errorf("loading the protocol machines: %w", err)
	}
	var all []finding
	for _, pkg := range pkgs {
		all = append(all, checkPackageRanges(t, pkg, byPath)...)
	}
	return all, nil
}

func checkPackageRanges(t *tree, pkg *packages.Package, byPath map[string]*source) []finding {
	var all []finding
	for i, file := range pkg.CompiledGoFiles {
		if i >= len(pkg.Syntax) {
			break
		}
		rel, err := filepath.Rel(t.root, file)
		if err != nil {
			continue
		}
		src := byPath[filepath.ToSlash(rel)]
		if src == nil {
			continue // made by the go command
		}
		if len(pkg.Errors) > 0 {
			return []finding{{file: src.path, line: 1, rule: rulePurity,
				text: "package does not compile, so its loops cannot be judged: " + firstError(pkg)}}
		}
		v := rangeVisitor{src: src, pkg: pkg, comments: lineComments(src)}
		v.visit(pkg.Syntax[i])
		all = append(all, v.found...)
	}
	return all
}

// firstError returns the first complaint of the type checker about a package, or else of the go command, on one line.
func firstError(pkg *packages.Package) string {
	first := pkg.Errors[0]
	if i := slices.IndexFunc(pkg.Errors, func(e packages.Error) bool { return e.Kind == packages.TypeError }); i >= 0 {
		first = pkg.Errors[i]
	}
	return strings.Join(strings.Fields(first.Msg), " ")
}

// rangeVisitor looks for loops over maps in one file.
type rangeVisitor struct {
	src      *source
	pkg      *packages.Package
	comments map[int]string
	found    []finding
}

func (v *rangeVisitor) visit(file *ast.File) {
	ast.PreorderStack(file, nil, func(n ast.Node, stack []ast.Node) bool {
		switch n := n.(type) {
		case *ast.RangeStmt:
			if isMap(v.pkg.TypesInfo.TypeOf(n.X)) {
				v.report(n, "range over a map")
			}
		case *ast.CallExpr:
			if v.calls(n, "maps", "All", "Keys", "Values") && !v.sorted(stack) {
				v.report(n, "walk over a map")
			}
		}
		return true
	})
}

// report notes a loop, unless its line carries the mark.
func (v *rangeVisitor) report(n ast.Node, what string) {
	line := v.pkg.Fset.PositionFor(n.Pos(), false).Line
	if reasoned(v.comments[line], orderFree) {
		return
	}
	v.found = append(v.found, finding{file: v.src.path, line: line, rule: rulePurity,
		text: what + " in a protocol machine: sort the keys, or mark the line // " + orderFree + ": reason"})
}

// sorted tells whether the node with this stack of parents is the argument of a sorting function of package slices.
func (v *rangeVisitor) sorted(stack []ast.Node) bool {
	if len(stack) == 0 {
		return false
	}
	call, ok := stack[len(stack)-1].(*ast.CallExpr)
	return ok && v.calls(call, "slices", "Sorted", "SortedFunc", "SortedStableFunc")
}

// calls tells whether call calls one of the named functions of a package.
func (v *rangeVisitor) calls(call *ast.CallExpr, pkg string, names ...string) bool {
	fun := ast.Unparen(call.Fun)
	if index, ok := fun.(*ast.IndexExpr); ok {
		fun = index.X
	}
	sel, ok := fun.(*ast.SelectorExpr)
	if !ok {
		return false
	}
	obj := v.pkg.TypesInfo.Uses[sel.Sel]
	return obj != nil && obj.Pkg() != nil && obj.Pkg().Path() == pkg && slices.Contains(names, obj.Name())
}

// isMap tells whether values of type t can be maps.
func isMap(t types.Type) bool {
	if t == nil {
		return false
	}
	switch u := t.Underlying().(type) {
	case *types.Map:
		return true
	case *types.Pointer:
		return false
	case *types.Interface: // the constraint of a type parameter
		for i := range u.NumEmbeddeds() {
			if constraintHasMap(u.EmbeddedType(i)) {
				return true
			}
		}
	}
	return false
}

func constraintHasMap(t types.Type) bool {
	union, ok := t.(*types.Union)
	if !ok {
		return isMap(t)
	}
	for i := range union.Len() {
		if isMap(union.Term(i).Type()) {
			return true
		}
	}
	return false
}
