//go:build !khamsin_invariants

package invariant

// Costly is true when assertions that walk whole structures are compiled in.
const Costly = false
