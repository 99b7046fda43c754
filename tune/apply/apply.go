package apply

import (
	"errors"
	"fmt"
	"strings"

	"github.com/khamsin-io/khamsin/tune"
	"github.com/khamsin-io/khamsin/tune/hostview"
)

// Options says how changes are carried out.
type Options struct {
	Journal   string // path below the host's root; default DefaultJournal
	Interface string // the one interface that may be changed; empty: none
	Persist   bool   // also write what makes the changes again when the host starts

	step func(what string) // of tests: called before every step
}

// Outcome is what became of one setting.
type Outcome struct {
	Change tune.Change
	Old    string // the value before
	Now    string // the value after
	Note   string // what else is to be said; empty when all is well
	Done   bool   // the setting has the value that was wanted
}

// PrivilegeError means that nothing was changed, because the caller may not.
type PrivilegeError struct {
	Changes []tune.Change
	Cause   error // about the first that may not be changed
}

// Error names the first setting that may not be changed.
func (e *PrivilegeError) Error() string {
	return fmt.Sprintf("nothing was changed, it takes more privilege: %v", e.Cause)
}

// Unwrap returns the cause.
func (e *PrivilegeError) Unwrap() error { return e.Cause }

// ErrInterface means that a change is about an interface that was not named.
var ErrInterface = errors.New("is about an interface that was not named")

// Apply makes changes, and the files that make them again at the host's start when o.Persist says so. What the outcomes
// say was done stays done when a later change fails; Revert undoes it. An error without outcomes means that nothing was
// changed.
func Apply(h *hostview.Host, changes []tune.Change, o Options) (outcomes []Outcome, err error) {
	plan, err := prepare(h, changes, o)
	if err != nil || len(plan) == 0 {
		return nil, err
	}
	j, err := openJournal(h.Path(o.journal()), true)
	if err != nil {
		return nil, fmt.Errorf("apply: journal: %w; nothing was changed", err)
	}
	defer func() { err = errors.Join(err, j.close()) }()
	if err := j.add(plan); err != nil {
		return nil, fmt.Errorf("apply: journal: %w; nothing was changed", err)
	}
	for _, e := range plan {
		o.note("change " + e.Target)
		out, err := carryOut(h, e)
		outcomes = append(outcomes, out)
		if err != nil {
			return outcomes, fmt.Errorf("apply: %s: %w", e.Target, err)
		}
	}
	o.note("end")
	return outcomes, nil
}

func (o Options) journal() string {
	if o.Journal == "" {
		return DefaultJournal
	}
	return o.Journal
}

func (o Options) note(what string) {
	if o.step != nil {
		o.step(what)
	}
}

// prepare returns the entries of what is to be done, leaving out what has its value already. It changes nothing.
func prepare(h *hostview.Host, changes []tune.Change, o Options) ([]entry, error) {
	var plan []entry
	var forbidden error
	for _, c := range changes {
		if i := c.Interface(); i != "" && i != o.Interface {
			return nil, fmt.Errorf("apply: %s %w: %s", c.Target, ErrInterface, i)
		}
		old, err := read(h, c)
		if err != nil {
			return nil, fmt.Errorf("apply: %w; nothing was changed", err)
		}
		if old == normal(c.Value) {
			continue
		}
		if err := permitted(h, c); err != nil && forbidden == nil {
			forbidden = err
		}
		plan = append(plan, entry{Kind: c.Kind, Target: c.Target, Old: old, New: normal(c.Value)})
	}
	if forbidden != nil {
		return nil, &PrivilegeError{Changes: changes, Cause: forbidden}
	}
	if !o.Persist {
		return plan, nil
	}
	files, err := persistent(h, changes)
	if err != nil {
		return nil, fmt.Errorf("apply: %w; nothing was changed", err)
	}
	return append(plan, files...), nil
}

// carryOut does what an entry announces, and reads it back. When the setting did not take the value, it gets its old
// one again.
func carryOut(h *hostview.Host, e entry) (Outcome, error) {
	out := Outcome{Change: e.change(), Old: e.Old, Now: e.Old}
	if e.isFile() {
		err := makeFile(h, e)
		out.Old, out.Now, out.Done = "", "written", err == nil
		return out, err
	}
	err := write(h, e.change(), e.New)
	now, readErr := read(h, e.change())
	if err = errors.Join(err, readErr); err == nil && now != e.New {
		err = fmt.Errorf("was set to %q and reads %q: another limit?", e.New, now)
	}
	if err != nil {
		err = errors.Join(err, restore(h, e, now))
		return out, err
	}
	out.Now, out.Done = now, true
	return out, nil
}

// restore gives a setting its old value again unless it has it.
func restore(h *hostview.Host, e entry, now string) error {
	if now == e.Old {
		return nil
	}
	return write(h, e.change(), e.Old)
}

// Select returns the changes of a report that are meant by names: of settings as the report has them, or of targets. No
// name means all. Changes of an interface that was not named are left out, and refused when they were asked for by
// name.
func Select(r tune.Report, names []string, named string) ([]tune.Change, error) {
	var chosen []tune.Change
	known := map[string]bool{}
	for _, f := range r.Findings {
		for _, c := range f.Changes {
			known[f.Setting], known[c.Target] = true, true
			asked := false
			for _, name := range names {
				asked = asked || name == f.Setting || name == c.Target
			}
			if !asked && len(names) > 0 {
				continue
			}
			if i := c.Interface(); i != "" && i != named {
				if asked {
					return nil, fmt.Errorf("%s %w: say --iface %s", f.Setting, ErrInterface, i)
				}
				continue
			}
			chosen = append(chosen, c)
		}
	}
	var faults []error
	for _, name := range names {
		if !known[name] {
			faults = append(faults, fmt.Errorf("%s: %s", name, whyNot(r, name)))
		}
	}
	return chosen, errors.Join(faults...)
}

// whyNot says why a setting that was asked for is not in the plan.
func whyNot(r tune.Report, name string) string {
	for _, f := range r.Findings {
		switch {
		case f.Setting != name:
		case f.Severity == tune.Unknown:
			return "cannot be read: " + f.Why
		case f.Severity.Wrong():
			return "cannot be changed from here: " + f.Fix
		default:
			return fmt.Sprintf("is right already: %s", f.Found)
		}
	}
	var all []string
	for _, f := range r.Findings {
		if len(f.Changes) > 0 {
			all = append(all, f.Setting)
		}
	}
	if len(all) == 0 {
		return "no such setting"
	}
	return "no such setting; to mend here: " + strings.Join(all, ", ")
}
