package main

import (
	"slices"
	"strings"
)

// checkArrows reports packages without a room and imports that do not run downwards.
func checkArrows(t *tree) []finding {
	var all []finding
	unknown := map[string]bool{}
	for _, src := range t.files {
		from, ok := findRoom(src.dir)
		if !ok {
			if !unknown[src.dir] {
				unknown[src.dir] = true
				all = append(all, src.at(src.syntax.Package, ruleArrows,
					"package %s has no room: give it a floor in tools/archlint/house.go", src.dir))
			}
			continue
		}
		all = append(all, checkImports(t, src, from)...)
	}
	return all
}

// checkImports reports the imports of one file that its room does not allow. Unknown packages are reported where they
// are, not where they are imported.
func checkImports(t *tree, src *source, from room) []finding {
	var all []finding
	for _, imp := range src.imports() {
		dir, ok := strings.CutPrefix(imp.path, t.module+"/")
		if !ok {
			continue
		}
		to, ok := findRoom(dir)
		if !ok {
			continue
		}
		if why := forbidden(from, to, src.test); why != "" {
			all = append(all, src.at(imp.pos, ruleArrows, "%s (floor %d) imports %s (floor %d): %s",
				from.path, from.floor, dir, to.floor, why))
		}
	}
	return all
}

// forbidden says why a file of one room may not import another room, or nothing.
func forbidden(from, to room, test bool) string {
	switch {
	case from.path == to.path:
		return ""
	case to.floor > from.floor:
		return "imports run downwards"
	case test || slices.Contains(from.sees, to.path):
		return ""
	case to.testSide && !from.testSide:
		return "this room is for tests only"
	case to.floor == from.floor:
		return "rooms of one floor do not see each other, and house.go lists no exception"
	case from.only != nil && !slices.Contains(from.only, to.path):
		return "house.go lists what this room may know, and this is not in the list"
	}
	return ""
}
