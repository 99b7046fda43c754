//go:build !linux

// Command threading measures the threading models of vsync. It needs Linux.
package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "threading: needs Linux")
	os.Exit(1)
}
