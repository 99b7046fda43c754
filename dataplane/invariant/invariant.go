// Package invariant holds the assertions of the module.
//
// An assertion guards what only our own mistake can break; it stops the process with the values that broke it. What
// comes from the network, a file or a user is never asserted: it is refused with an error or counted.
// Cheap assertions are always compiled in. Costly ones stand behind the constant Costly, which the build tag
// khamsin_invariants sets, so that production pays nothing for them.
package invariant

import "fmt"

// Violation is the value of the panic of a failed assertion.
type Violation struct{ Message string }

// Error returns the assertion's message.
func (v *Violation) Error() string { return "invariant violated: " + v.Message }

// Check panics with a *Violation when ok is false. The format should print the state that broke the rule. The arguments
// are evaluated on every call: on hot paths test the condition first and call Fail.
func Check(ok bool, format string, args ...any) {
	if !ok {
		Fail(format, args...)
	}
}

// Fail panics with a *Violation.
func Fail(format string, args ...any) {
	panic(&Violation{Message: fmt.Sprintf(format, args...)})
}
