package vsync

import (
	"context"
	"fmt"
	"reflect"
	"strings"

	"github.com/khamsin-io/khamsin/vsync/codec"
	"github.com/khamsin-io/khamsin/vsync/internal/host"
)

// StateWriter takes a group's state, piece by piece. It belongs to the function that got it, until that returns.
type StateWriter struct {
	inner *host.StateWriter
	group *Group
}

// Put sends one piece: values, which each joiner passes to its loader for exactly their types. It waits while the
// transfer has no room, and returns ErrTransferAborted when there is nobody left to send to. Pieces are cheaper when
// they are few and large, up to Config.MaxMessage.
func (w *StateWriter) Put(vals ...any) error {
	buf := w.group.sys.newBuffer()
	defer buf.free()
	var err error
	if buf.b, err = w.group.sys.types.Append(buf.b[:0], vals...); err != nil {
		return err
	}
	return w.put(buf.b)
}

// put sends one piece as it is, but for the seal of a group with a key.
func (w *StateWriter) put(piece []byte) error {
	if secret := w.group.secret; secret != nil {
		return w.inner.Put(secret.seal([]byte{pieceSealed}, sealedState, nil, piece))
	}
	return w.inner.Put(piece)
}

// What a piece of the state of a group with a key begins with.
const (
	pieceKey    = iota // the key, wrapped
	pieceSealed        // a piece, sealed
)

// unseal returns a piece of state, or nil when it was the group's key.
func (g *Group) unseal(piece []byte) ([]byte, error) {
	switch {
	case g.secret == nil:
		return piece, nil
	case len(piece) == 0:
		return nil, errSealed
	case piece[0] == pieceKey:
		return nil, g.unwrapKey(piece[1:])
	}
	plain, ok := g.secret.open(nil, sealedState, 0, nil, piece[1:])
	if !ok {
		return nil, errSealed
	}
	return plain, nil
}

// PutBytes is Put of one []byte.
func (w *StateWriter) PutBytes(piece []byte) error { return w.Put(piece) }

// Write sends bytes as one piece: a Put of a []byte. It makes a StateWriter an io.Writer, whose joiners get the bytes
// in pieces, in order, in a loader that takes a []byte.
func (w *StateWriter) Write(p []byte) (int, error) {
	if err := w.Put(p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// loader takes pieces of state of one list of types.
type loader struct {
	name  string
	types []reflect.Type
	fn    reflect.Value
	lead  bool // a context.Context comes first
	fails bool // returns an error
	bytes func(piece []byte) error
	shape codec.Shape
}

// newLoader finds out what a function loads.
func newLoader(f any) (*loader, error) {
	l := &loader{name: nameOf(f), fn: reflect.ValueOf(f)}
	if l.fn.Kind() != reflect.Func || l.fn.IsNil() {
		return nil, fmt.Errorf("%w: %T is no function", ErrHandler, f)
	}
	t := l.fn.Type()
	l.fails = t.NumOut() == 1 && t.Out(0) == errorType
	if t.IsVariadic() || t.NumOut() > 0 && !l.fails {
		return nil, fmt.Errorf("%w: %v: a loader takes values and returns nothing, or an error", ErrHandler, t)
	}
	for i := range t.NumIn() {
		if i == 0 && t.In(i) == contextType {
			l.lead = true
			continue
		}
		l.types = append(l.types, t.In(i))
	}
	l.bytes, _ = f.(func([]byte) error)
	return l, nil
}

// OnMakeState sets the function that writes the group's state for the members that join. It runs at the oldest member,
// at the point of its sequence just before the view, v, that holds the joiners: the state must hold the effect of
// exactly the messages handled so far. When it returns an error the joiners do not get in. It must be called before
// Join; without it joiners start with no state.
func (g *Group) OnMakeState(f func(ctx context.Context, v *View, w *StateWriter) error) error {
	return g.declare("make state", func() { g.onMake = f })
}

// OnLoadState adds a function that gets the state at a member that joins: of several ones, each piece goes to the one
// for the types that it was Put with, in order, all before the first view. f is
//
//	func(a A, b B, ...)          func(a A, b B, ...) error
//
// and may take a context.Context first. The values are f's. When it returns an error, or when there is no loader for a
// piece, Join returns it, and the group is left. It must be called before Join.
func (g *Group) OnLoadState(f any) error {
	l, err := newLoader(f)
	if err != nil {
		return g.fail("load state", err)
	}
	return g.declare("load state", func() { g.onLoad = append(g.onLoad, l) })
}

// OnInit sets a function that is called in the process that brings the group to life, before its first view. When it
// returns an error, Join returns it, and the group is left. It must be called before Join.
func (g *Group) OnInit(f func(ctx context.Context) error) error {
	return g.declare("initialise", func() { g.onInit = f })
}

// bindLoaders finds the shapes of what is loaded.
func (g *Group) bindLoaders() error {
	for i, l := range g.onLoad {
		var err error
		if l.shape, err = g.sys.types.ShapeOf(l.types...); err != nil {
			return fmt.Errorf("state loader %s: %w", l.name, err)
		}
		for _, other := range g.onLoad[:i] {
			if other.shape == l.shape {
				return fmt.Errorf("%w: two state loaders of the same types, %s and %s", ErrHandler, other.name, l.name)
			}
		}
	}
	return nil
}

// load passes a piece of state, which is its own, to its loader.
func (g *Group) load(ctx context.Context, piece []byte) error {
	shape, err := g.sys.types.AppendShape(nil, piece)
	if err != nil {
		return err
	}
	for _, l := range g.onLoad {
		if l.shape == codec.Shape(shape) {
			return l.load(ctx, g.sys.types, piece)
		}
	}
	names, err := g.sys.types.Types(piece)
	if err != nil {
		return err
	}
	return fmt.Errorf("%w: no state loader for (%s)", ErrHandler, strings.Join(names, ", "))
}

func (l *loader) load(ctx context.Context, types *codec.Registry, piece []byte) error {
	if l.bytes != nil {
		b, _, err := codec.BorrowBytes(piece) // the piece is ours: no copy
		if err != nil {
			return err
		}
		return l.bytes(b)
	}
	args := make([]reflect.Value, 0, len(l.types)+1)
	if l.lead {
		args = append(args, reflect.ValueOf(&ctx).Elem())
	}
	ptrs := make([]any, len(l.types))
	for i, t := range l.types {
		p := reflect.New(t)
		ptrs[i] = p.Interface()
		args = append(args, p.Elem())
	}
	if err := types.Unmarshal(piece, ptrs...); err != nil {
		return err
	}
	out := l.fn.Call(args)
	if !l.fails {
		return nil
	}
	err, _ := out[0].Interface().(error)
	return err
}
