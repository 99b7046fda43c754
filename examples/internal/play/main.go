package play

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

// mainMark tells a test program that it is to be the example itself.
const mainMark = "KHAMSIN_EXAMPLE"

// Main runs the tests of an example, or the example when Started asks for it.
func Main(m *testing.M, main func()) {
	if os.Getenv(mainMark) != "" {
		main()
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// Started starts the example as a user does, as a process of its own that talks on the loopback, and checks that it
// ends well and prints what is wanted.
func Started(t testing.TB, want string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0])
	port := 20_000 + 10*rand.IntN(1000) // not those of other examples
	cmd.Env = append(os.Environ(), mainMark+"=1", fmt.Sprint("ISIS_PORTNO=", port), fmt.Sprint("ISIS_PORTNOp=", port+1))
	out, err := cmd.Output()
	if err != nil || !strings.Contains(string(out), want) {
		t.Errorf("%v; it printed:\n%s", err, out)
	}
}
