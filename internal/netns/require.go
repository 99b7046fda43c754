package netns

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// Require skips the test when err says that a feature is missing, and fails it when KHAMSIN_REQUIRE lists the feature.
func Require(tb testing.TB, feature string, err error) {
	tb.Helper()
	if err == nil {
		return
	}
	if slices.Contains(strings.Split(os.Getenv("KHAMSIN_REQUIRE"), ","), feature) {
		tb.Fatalf("%s is required: %v", feature, err)
	}
	tb.Skipf("no %s: %v", feature, err)
}
