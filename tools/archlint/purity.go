package main

import (
	"go/ast"
	"go/token"
	"slices"
	"strings"
)

// clockReads are the functions of package time that read the clock.
//
// immutable: names of package time
var clockReads = []string{"Now", "Since", "Until"}

// clockWaits are the functions of package time that wait on the clock.
//
// immutable: names of package time
var clockWaits = []string{"After", "AfterFunc", "NewTicker", "NewTimer", "Sleep", "Tick"}

// seeded are the functions of math/rand and math/rand/v2 that draw from a source given by the caller. All others draw
// from the process's own, which no seed reaches.
//
// immutable: names of math/rand
var seeded = []string{"New", "NewChaCha8", "NewPCG", "NewSource", "NewZipf"}

// bannedInMachines are imports, with all below them, that tie a machine to a process, a thread or a device.
//
// immutable: import paths
var bannedInMachines = []string{
	"crypto/rand", "golang.org/x/sys", "io/ioutil", "log/slog", "net", "os", "runtime", "sync", "syscall", "unsafe",
}

// allowedInMachines are the exceptions from bannedInMachines: pure packages that happen to live below one of them.
//
// immutable: import paths
var allowedInMachines = []string{"net/netip"}

// checkPurity reports what makes a protocol machine depend on more than its input, and clock readings below the
// engines. Tests are free. Ranging over maps is checkMapRanges's part.
func checkPurity(t *tree) []finding {
	var all []finding
	for _, src := range t.files {
		if src.test {
			continue
		}
		if deterministic(src.dir) {
			all = append(all, checkMachine(src)...)
			continue
		}
		r, ok := findRoom(src.dir)
		if ok && r.floor < engineFloor && r.path != clockRoom && !r.testSide {
			all = append(all, checkClock(src)...)
		}
	}
	return all
}

// checkMachine holds one file of a protocol machine to the rules.
func checkMachine(src *source) []finding {
	var all []finding
	for _, imp := range src.imports() {
		if banned(imp.path) {
			all = append(all, src.at(imp.pos, rulePurity, "a protocol machine must not import %q", imp.path))
		}
	}
	forEachUse(src, "time", func(name string, pos token.Pos) {
		if slices.Contains(clockReads, name) || slices.Contains(clockWaits, name) {
			all = append(all, src.at(pos, rulePurity,
				"time.%s in a protocol machine: time comes from the caller", name))
		}
	})
	forEachUse(src, "log", func(name string, pos token.Pos) {
		if name != "New" && name != "Logger" { // a library may insist on a logger of its own
			all = append(all, src.at(pos, rulePurity, "log.%s writes to the process's log", name))
		}
	})
	for _, path := range []string{"math/rand", "math/rand/v2"} {
		forEachUse(src, path, func(name string, pos token.Pos) {
			if ast.IsExported(name) && isDraw(name) {
				all = append(all, src.at(pos, rulePurity,
					"%s.%s draws from the process's source: use a generator with the engine's seed", path, name))
			}
		})
	}
	ast.Inspect(src.syntax, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			all = append(all, src.at(n.Pos(), rulePurity, "go statement in a protocol machine"))
		case *ast.SelectStmt:
			all = append(all, src.at(n.Pos(), rulePurity, "select statement in a protocol machine"))
		}
		return true
	})
	return all
}

// isDraw tells whether a name of math/rand is a function that draws from the process's source. Types are not.
func isDraw(name string) bool {
	types := []string{"Rand", "Source", "Source64", "PCG", "ChaCha8", "Zipf"}
	return !slices.Contains(seeded, name) && !slices.Contains(types, name)
}

// checkClock reports clock readings of one file that lies below the engines.
func checkClock(src *source) []finding {
	var all []finding
	forEachUse(src, "time", func(name string, pos token.Pos) {
		if slices.Contains(clockReads, name) {
			all = append(all, src.at(pos, rulePurity,
				"time.%s below the engines: only %s reads the clock, take a clock.Source", name, clockRoom))
		}
	})
	return all
}

// banned tells whether a protocol machine must not import path.
func banned(path string) bool {
	if slices.ContainsFunc(allowedInMachines, func(ok string) bool { return within(path, ok) }) {
		return false
	}
	return slices.ContainsFunc(bannedInMachines, func(top string) bool { return within(path, top) })
}

// forEachUse calls fn for every name that the file uses of an imported package. A dot import is reported as the use of
// every exported name that stands alone, which is more than it brings in; machines have no reason for dot imports.
func forEachUse(src *source, path string, fn func(name string, pos token.Pos)) {
	for _, imp := range src.imports() {
		if imp.path != path || imp.name == "_" {
			continue
		}
		ast.Inspect(src.syntax, func(n ast.Node) bool {
			if imp.name == "." {
				if id, ok := n.(*ast.Ident); ok && id.IsExported() {
					fn(id.Name, id.Pos())
				}
				return true
			}
			sel, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			if pkg, ok := sel.X.(*ast.Ident); ok && pkg.Name == imp.name {
				fn(sel.Sel.Name, sel.Pos())
			}
			return true
		})
	}
}

// lineComments returns the text of each comment of the file by the line it ends on.
func lineComments(src *source) map[int]string {
	comments := map[int]string{}
	for _, group := range src.syntax.Comments {
		for _, c := range group.List {
			comments[src.line(c.End())] += strings.TrimSpace(strings.TrimPrefix(c.Text, "//"))
		}
	}
	return comments
}

// reasoned tells whether a comment is a mark of the given kind with a reason: "order-free: sums commute".
func reasoned(comment, mark string) bool {
	_, reason, found := strings.Cut(comment, mark+":")
	return found && strings.TrimSpace(reason) != ""
}
