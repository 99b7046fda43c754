//go:build khamsin_canary

package sim

import (
	"github.com/khamsin-io/khamsin/dataplane/invariant"
	"github.com/khamsin-io/khamsin/vsync/internal/canary"
	"github.com/khamsin-io/khamsin/vsync/internal/engine"
)

// Canary is a bug that can be planted in the engines, and the checker that must catch it.
type Canary struct{ Name, Checker string }

// Canaries returns every bug that can be planted.
func Canaries() []Canary {
	var list []Canary
	for _, b := range canary.All() {
		list = append(list, Canary{b.String(), b.Checker()})
	}
	return list
}

// plant puts the bug of a name into an engine.
func plant(cfg engine.Config, name string) engine.Config {
	if name == "" {
		return cfg
	}
	for _, b := range canary.All() {
		if b.String() == name {
			cfg.Canary = b
			return cfg
		}
	}
	invariant.Fail("sim: no bug is called %q", name)
	return cfg
}
