package oob

import (
	"errors"
	"fmt"

	"github.com/khamsin-io/khamsin/oob/internal/memory"
	"github.com/khamsin-io/khamsin/vsync"
)

// Errors of stores. Those of this package's functions wrap one of them; test with errors.Is.
//
// immutable: errors
var (
	ErrName       = errors.New("bad name of an object")
	ErrExists     = errors.New("an object of this name exists")
	ErrNotFound   = errors.New("no object of this name")
	ErrDeleted    = errors.New("the object was deleted")
	ErrLost       = errors.New("the object is lost: nobody who had it is left")
	ErrSuperseded = errors.New("superseded by a later request on the same object")
	ErrLastCopy   = errors.New("would delete the last copy before another one is complete: copy first, then delete")
	ErrNotHolder  = errors.New("this process does not hold the object")
	ErrPartial    = errors.New("some members could not take a copy")
	ErrRegistered = errors.New("already registered")
	ErrClosed     = errors.New("the store is closed")
	ErrNoSpace    = memory.ErrNoSpace
)

// PartialError says which members could not take a copy, for want of memory for instance.
type PartialError struct {
	Name   string
	Failed []vsync.Address
}

// Error names the members.
func (e *PartialError) Error() string {
	return fmt.Sprintf("object %q: %v: %v", e.Name, ErrPartial, e.Failed)
}

// Is makes errors.Is(err, ErrPartial) true.
func (e *PartialError) Is(target error) bool { return target == ErrPartial }

func named(name string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("object %q: %w", name, err)
}
