//go:build !khamsin_canary

package sim

import "github.com/khamsin-io/khamsin/vsync/internal/engine"

// Canary is a bug that can be planted in the engines, and the checker that must catch it.
type Canary struct{ Name, Checker string }

// Canaries returns every bug that can be planted: none in this binary, which was built without the tag khamsin_canary.
func Canaries() []Canary { return nil }

// plant does nothing: there are no bugs in this binary.
func plant(cfg engine.Config, _ string) engine.Config { return cfg }
