package main

import (
	"go/ast"
	"go/token"
	"regexp"
	"strings"
)

// immutable is the mark on a package variable that nobody changes.
const immutable = "immutable"

// sentinelName matches the names of error values.
var sentinelName = regexp.MustCompile(`^(Err|err)([A-Z].*)?$`)

// checkState reports package variables: any number of Systems live in one process, so none may share state through a
// package. Let through are error sentinels, compiled regular expressions, reflected types, embedded files, functions,
// the blank name, and what is marked "// immutable: reason" above it or beside it. Locks and atomics cannot be marked:
// they exist to change.
func checkState(t *tree) []finding {
	var all []finding
	for _, src := range t.files {
		if src.test || src.generated {
			continue
		}
		comments := lineComments(src)
		for _, decl := range src.syntax.Decls {
			gen, ok := decl.(*ast.GenDecl)
			if !ok || gen.Tok != token.VAR {
				continue
			}
			for _, spec := range gen.Specs {
				all = append(all, checkVar(src, gen, spec.(*ast.ValueSpec), comments)...)
			}
		}
	}
	return all
}

// checkVar reports the mutable names of one line of a var declaration.
func checkVar(src *source, gen *ast.GenDecl, spec *ast.ValueSpec, comments map[int]string) []finding {
	changes := spec.Type != nil && usesPackage(spec.Type, "sync", "atomic")
	for _, v := range spec.Values {
		if lit, ok := ast.Unparen(v).(*ast.CompositeLit); ok && usesPackage(lit.Type, "sync", "atomic") {
			changes = true
		}
	}
	if !changes && isMarked(src, gen, spec, comments) {
		return nil
	}
	var all []finding
	for i, name := range spec.Names {
		if name.Name == "_" || isConstant(gen, spec, i) {
			continue
		}
		text := "package variable %s: keep state in a value, or mark it // " + immutable + ": reason"
		if changes {
			text = "package variable %s is made to change: keep it in a value"
		}
		all = append(all, src.at(name.Pos(), ruleState, text, name.Name))
	}
	return all
}

// isMarked tells whether the declaration carries the mark: in its comment, the comment of its group, or on its first or
// last line.
func isMarked(src *source, gen *ast.GenDecl, spec *ast.ValueSpec, comments map[int]string) bool {
	docs := []*ast.CommentGroup{spec.Doc, spec.Comment}
	if !gen.Lparen.IsValid() {
		docs = append(docs, gen.Doc)
	}
	for _, doc := range docs {
		if doc == nil {
			continue
		}
		for _, c := range doc.List {
			if reasoned(c.Text, immutable) {
				return true
			}
		}
	}
	return reasoned(comments[src.line(spec.Pos())], immutable) || reasoned(comments[src.line(spec.End())], immutable)
}

// isConstant tells whether the i-th name of a spec is one of the kinds that nobody changes.
func isConstant(gen *ast.GenDecl, spec *ast.ValueSpec, i int) bool {
	if isEmbedded(gen.Doc) || isEmbedded(spec.Doc) {
		return true
	}
	if sentinelName.MatchString(spec.Names[i].Name) {
		return true
	}
	if i >= len(spec.Values) {
		return false
	}
	switch v := ast.Unparen(spec.Values[i]).(type) {
	case *ast.FuncLit:
		return true
	case *ast.CallExpr:
		return makesConstant(v.Fun)
	}
	return false
}

// makesConstant tells whether a function is known to make a value that nobody can change.
func makesConstant(fun ast.Expr) bool {
	if generic, ok := fun.(*ast.IndexExpr); ok {
		fun = generic.X
	}
	sel, ok := fun.(*ast.SelectorExpr)
	if !ok {
		return false
	}
	pkg, ok := sel.X.(*ast.Ident)
	if !ok {
		return false
	}
	switch pkg.Name {
	case "regexp":
		return strings.HasPrefix(sel.Sel.Name, "MustCompile")
	case "reflect":
		return sel.Sel.Name == "TypeFor" || sel.Sel.Name == "TypeOf"
	case "errors":
		return sel.Sel.Name == "New"
	}
	return false
}

// isEmbedded tells whether a comment holds an embed directive.
func isEmbedded(doc *ast.CommentGroup) bool {
	if doc == nil {
		return false
	}
	for _, c := range doc.List {
		if strings.HasPrefix(c.Text, "//go:embed ") {
			return true
		}
	}
	return false
}

// usesPackage tells whether a type's own name comes from one of the packages; what it is made of is not looked at.
func usesPackage(typ ast.Expr, names ...string) bool {
	switch t := typ.(type) {
	case *ast.IndexExpr:
		return usesPackage(t.X, names...)
	case *ast.StarExpr:
		return usesPackage(t.X, names...)
	case *ast.ArrayType:
		return usesPackage(t.Elt, names...)
	case *ast.SelectorExpr:
		pkg, ok := t.X.(*ast.Ident)
		if !ok {
			return false
		}
		for _, name := range names {
			if pkg.Name == name {
				return true
			}
		}
	}
	return false
}
