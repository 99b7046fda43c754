package tuning

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/khamsin-io/khamsin/tune"
	"github.com/khamsin-io/khamsin/tune/apply"
	"github.com/khamsin-io/khamsin/tune/hostview"
)

// ApplyOptions says what is changed, and how.
type ApplyOptions struct {
	Settings []string // names of settings; empty means all
	DryRun   bool
	Persist  bool
	Revert   bool
	Journal  string
}

// Apply changes what a check found wrong, or changes it back.
func Apply(w io.Writer, g Goal, o ApplyOptions) error {
	if o.Revert && (o.Persist || o.DryRun || len(o.Settings) > 0) {
		return failed(errors.New("--revert undoes all that the journal holds: leave out everything but --journal"))
	}
	journal, err := filepath.Abs(o.Journal)
	if err != nil {
		return failed(err)
	}
	host, err := hostview.Here()
	if err != nil {
		return failed(err)
	}
	options := apply.Options{Journal: journal, Interface: g.Iface, Persist: o.Persist}
	if o.Revert {
		return revert(w, host, options)
	}
	report, err := g.check(host)
	if err != nil {
		return failed(err)
	}
	changes, err := apply.Select(report, o.Settings, g.Iface)
	if err != nil {
		return failed(err)
	}
	if o.DryRun {
		return dryRun(w, host, changes, o.Persist)
	}
	outcomes, err := apply.Apply(host, changes, options)
	if denied := new(apply.PrivilegeError); errors.As(err, &denied) {
		return refuse(w, denied)
	}
	return errors.Join(writeOutcomes(w, outcomes, "nothing to change"), failed(err))
}

// dryRun prints the commands that would do what Apply does, and the files that it would write.
func dryRun(w io.Writer, host *hostview.Host, changes []tune.Change, persist bool) error {
	if len(changes) == 0 {
		_, err := fmt.Fprintln(w, "nothing to change")
		return failed(err)
	}
	if err := writeCommands(w, changes); err != nil || !persist {
		return err
	}
	files, err := apply.Files(host, changes)
	if err != nil {
		return failed(err)
	}
	for _, f := range files {
		if _, err := fmt.Fprintf(w, "\n# %s\n%s\n", f.Path, f.Text); err != nil {
			return failed(err)
		}
	}
	return nil
}

func writeCommands(w io.Writer, changes []tune.Change) error {
	for _, c := range changes {
		if _, err := fmt.Fprintln(w, c.Command()); err != nil {
			return failed(err)
		}
	}
	return nil
}

// refuse prints what to run instead, since the caller may not change anything.
func refuse(w io.Writer, denied *apply.PrivilegeError) error {
	_, err := fmt.Fprintln(w, "# not permitted; as root, these commands do it:")
	return errors.Join(err, writeCommands(w, denied.Changes), failed(denied))
}

func revert(w io.Writer, host *hostview.Host, options apply.Options) error {
	outcomes, err := apply.Revert(host, options)
	return errors.Join(writeOutcomes(w, outcomes, "nothing to revert"), failed(err))
}

// writeOutcomes prints one line for each setting. A setting that was left alone makes the command's status say so.
func writeOutcomes(w io.Writer, outcomes []apply.Outcome, none string) error {
	if len(outcomes) == 0 {
		_, err := fmt.Fprintln(w, none)
		return failed(err)
	}
	var status error
	for _, out := range outcomes {
		line := fmt.Sprintf("%-32s %s -> %s", out.Change.Target, out.Old, out.Now)
		if out.Note != "" {
			line += " (" + out.Note + ")"
		}
		if !out.Done {
			status = &ExitError{Status: ExitWrong}
		}
		if _, err := fmt.Fprintln(w, line); err != nil {
			return failed(err)
		}
	}
	return status
}

// Export prints what Apply would change in another form.
func Export(w io.Writer, s Source, settings []string, format string) error {
	report, err := s.report()
	if err != nil {
		return failed(err)
	}
	changes, err := apply.Select(report, settings, s.Iface)
	if err != nil {
		return failed(err)
	}
	text, err := apply.Export(changes, apply.Format(format))
	if err != nil {
		return failed(err)
	}
	_, err = io.WriteString(w, text)
	return failed(err)
}
