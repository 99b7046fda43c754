package invariant

import (
	"errors"
	"testing"
)

func TestCheckPanicsWithTheValues(t *testing.T) {
	Check(true, "never printed")
	defer func() {
		err, ok := recover().(error)
		var v *Violation
		if !ok || !errors.As(err, &v) {
			t.Fatal("Check(false) did not panic with a *Violation")
		}
		if want := "window 7 above limit 4"; v.Message != want {
			t.Fatalf("message %q, want %q", v.Message, want)
		}
	}()
	Check(false, "window %d above limit %d", 7, 4)
}
