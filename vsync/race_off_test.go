//go:build !race

package vsync

const raceEnabled = false
