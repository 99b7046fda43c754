// Package sim runs whole systems of engines in one goroutine on a virtual clock: a seed draws the weather, the
// applications and every delay, so that a run is a pure function of its seed and can be played again.
//
// A run has four phases. Under faults, packets are lost, doubled, reordered and damaged, processes crash, pause, join
// and leave, and links are cut, while applications send. Then everything heals, and all that is alive must converge
// within a bound. Then every process stops in order, and every arena must be whole. Last, the checkers go over the
// history: each is a file check_*.go whose comment states one guarantee, and none looks into an engine.
//
// Beside these random runs there are small worlds, in which up to two processes crash at every step of a change of view
// (small.go), and stories, scripts whose outcome is kept (story.go).
//
// A World is confined to one goroutine; any number of Worlds may run at the same time. Nothing in this package starts a
// goroutine, reads a clock or ranges over a map where the order could matter.
package sim
