package vsync

import (
	"errors"

	"github.com/khamsin-io/khamsin/vsync/codec"
	"github.com/khamsin-io/khamsin/vsync/core"
)

// Numbers of the library's own types in messages. They are part of the protocol.
const (
	typeAddress = codec.LibraryIDMin + iota
	typeGroupID
	typeView
)

// newTypes returns the application's registry, or a new one, with the library's types in it.
func newTypes(r *codec.Registry) (*codec.Registry, error) {
	if r == nil {
		r = codec.NewRegistry()
	}
	for _, err := range []error{
		codec.RegisterLibrary[core.Address](r, typeAddress),
		codec.RegisterLibrary[core.GroupID](r, typeGroupID),
		codec.RegisterLibrary[View](r, typeView),
	} {
		// A registry that several systems share has them already, and may be frozen.
		if err != nil && !errors.Is(err, codec.ErrDuplicate) && !errors.Is(err, codec.ErrFrozen) {
			return nil, err
		}
	}
	return r, nil
}
