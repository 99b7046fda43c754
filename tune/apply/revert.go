package apply

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/khamsin-io/khamsin/tune/hostview"
)

// Revert undoes everything that the journal holds, the last change first, and then deletes the journal. A setting that
// somebody else changed meanwhile is left alone, which its outcome says. When a change fails the others are made all
// the same, and the journal stays for another try. Without a journal there is nothing to undo.
func Revert(h *hostview.Host, o Options) (outcomes []Outcome, err error) {
	j, err := openJournal(h.Path(o.journal()), false)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("revert: journal: %w", err)
	}
	defer func() { err = errors.Join(err, j.close()) }()
	var faults []error
	for _, e := range slices.Backward(j.entries) {
		o.note("undo " + e.Target)
		out, err := undo(h, e)
		if err != nil {
			faults = append(faults, fmt.Errorf("revert: %s: %w", e.Target, err))
		}
		outcomes = append(outcomes, out)
	}
	if len(faults) > 0 {
		return outcomes, errors.Join(faults...)
	}
	return outcomes, j.remove()
}

// undo undoes one entry, or finds that nothing is to be undone.
func undo(h *hostview.Host, e entry) (Outcome, error) {
	out := Outcome{Change: e.change(), Old: e.New}
	if e.isFile() {
		note, err := unmakeFile(h, e)
		out.Old, out.Now, out.Note, out.Done = "", "as before", note, err == nil && note == ""
		return out, err
	}
	now, err := read(h, e.change())
	if err != nil {
		return out, err
	}
	out.Now = now
	switch now {
	case e.Old:
		out.Note, out.Done = "had its old value", true
		return out, nil
	case e.New:
	default:
		out.Note = fmt.Sprintf("left alone: somebody changed it since; it was %s before khamsin", e.Old)
		return out, nil
	}
	if err := write(h, e.change(), e.Old); err != nil {
		return out, err
	}
	if out.Now, err = read(h, e.change()); err != nil {
		return out, err
	}
	if out.Now != e.Old {
		return out, fmt.Errorf("was set to %q and reads %q", e.Old, out.Now)
	}
	out.Done = true
	return out, nil
}
