package codec

import (
	"errors"
	"fmt"
	"go/token"
	"reflect"
	"sync"
	"sync/atomic"
)

// Registry knows the types of one application by their ids. The zero value is ready to use; a nil *Registry knows the
// built-in types only and takes no others. A Registry must not be copied.
//
// Types are added by any number of goroutines until the registry is frozen, by Freeze or by the first use for a value
// whose type is not built in. From then on it never changes.
type Registry struct {
	wide     bool
	portable bool

	mu     sync.Mutex // guards what follows until the registry is frozen
	types  []*entry   // in the order of registration
	byID   map[uint16]*entry
	byType map[reflect.Type]*entry
	shapes []form

	frozen atomic.Pointer[tables]
}

// entry is one registered type.
type entry struct {
	id    uint16
	kind  registeredKind
	typ   reflect.Type
	forms []form // the type itself, slices of it, pointers to it, slices of pointers to it
}

// form is a type with the operations that were made where the compiler knew it.
type form struct {
	typ reflect.Type
	ops typeOps
}

func formOf[T any]() form { return form{reflect.TypeFor[T](), opsOf[T]()} }

// Option changes how a Registry is made.
type Option func(*Registry)

// WideIDs lets Register take ids from WideIDMin to 65535 besides those up to UserIDMax. They cost two more bytes in
// front of each value. All members of a group must make the same choice of ids.
func WideIDs() Option { return func(r *Registry) { r.wide = true } }

// NewRegistry returns an empty registry.
func NewRegistry(options ...Option) *Registry {
	r := &Registry{portable: !hostIsLittle()}
	for _, o := range options {
		o(r)
	}
	return r
}

// Register makes values of type T known by an id, which must be the same in all members of a group: 0 to UserIDMax, or
// more with WideIDs. T is a named, exported type: a type with an encoding of its own (see Marshaler); or a struct, of
// which the exported fields travel in order, except those tagged `vsync:"-"`; or any other type that can travel.
// Named types inside T may be registered before or after it. What does not travel is zero at the receiver.
//
// Slices of T and pointers to T can travel as soon as T can.
//
// The error is a *RegisterError that wraps ErrID, ErrDuplicate, ErrFrozen or ErrUncodable.
func Register[T any](r *Registry, id uint16) error {
	t := reflect.TypeFor[T]()
	if id > UserIDMax && (!r.wide || id < WideIDMin) {
		return buildError(ErrID, "", t, fmt.Sprintf("id %d: the application has 0 to %d, and from %d with WideIDs",
			id, UserIDMax, WideIDMin))
	}
	return register[T](r, id, byUser)
}

func register[T any](r *Registry, id uint16, kind registeredKind) error {
	e := &entry{id: id, kind: kind, typ: reflect.TypeFor[T]()}
	if err := checkName(e.typ); err != nil {
		return buildError(ErrUncodable, "", e.typ, err.Error())
	}
	custom, err := customOf[T]()
	if err != nil {
		return buildError(ErrUncodable, "", e.typ, err.Error())
	}
	e.forms = []form{formOf[T](), formOf[[]T](), formOf[*T](), formOf[[]*T]()}
	e.forms[0].ops.custom = custom
	return r.add(e)
}

// checkName tells why a type cannot be registered for its name, nil if it can.
func checkName(t reflect.Type) error {
	switch {
	case t.Kind() == reflect.Interface:
		return errors.New("interfaces cannot be registered, only the types behind them")
	case t.Kind() == reflect.Pointer && t.Name() == "":
		return errors.New("register the type, not the pointer to it")
	case t.Name() == "" || t.PkgPath() == "":
		return errors.New("only named types can be registered")
	case isPair(t), t == rawType, builtins.byType[t] != nil:
		return errors.New("it is built in")
	case !token.IsExported(t.Name()):
		return errors.New("its name is not exported")
	}
	return nil
}

// add checks and enters a type.
func (r *Registry) add(e *entry) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.frozen.Load() != nil {
		return buildError(ErrFrozen, "", e.typ, "types must be registered before the first group is joined")
	}
	if other := r.byID[e.id]; other != nil {
		return buildError(ErrDuplicate, "", e.typ, fmt.Sprintf("id %d belongs to %v", e.id, other.typ))
	}
	if other := r.byType[e.typ]; other != nil {
		return buildError(ErrDuplicate, "", e.typ, fmt.Sprintf("its id is %d", other.id))
	}
	// Probe: everything but types that may still come must be right.
	n := e.newNode()
	probe := &builder{known: map[reflect.Type]*node{e.typ: n}, probe: true}
	if err := probe.body(n); err != nil {
		return err
	}
	if r.byID == nil {
		r.byID, r.byType = make(map[uint16]*entry), make(map[reflect.Type]*entry)
	}
	r.byID[e.id], r.byType[e.typ] = e, e
	r.types = append(r.types, e)
	return nil
}

// RegisterShape makes UnmarshalAny return values of type T where it would return a Raw otherwise: T is an array, a Pair
// or a slice of pairs, say. Everything else works without.
func RegisterShape[T any](r *Registry) error {
	f := formOf[T]()
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.frozen.Load() != nil:
		return buildError(ErrFrozen, "", f.typ, "types must be registered before the first group is joined")
	case f.typ.Name() != "" && !isPair(f.typ):
		return buildError(ErrUncodable, "", f.typ, "named types are registered with an id")
	}
	for _, s := range r.shapes {
		if s.typ == f.typ {
			return buildError(ErrDuplicate, "", f.typ, "once is enough")
		}
	}
	if _, err := (&builder{probe: true}).node(f.typ, ""); err != nil {
		return err
	}
	r.shapes = append(r.shapes, f)
	return nil
}

// Freeze ends the registration of types. It reports all types that contain others that are not registered; the registry
// is then not frozen. Freezing again does nothing.
func (r *Registry) Freeze() error {
	_, err := r.load()
	return err
}

// load returns the tables, and freezes the registry for that.
func (r *Registry) load() (*tables, error) {
	if r == nil {
		return noTables, nil
	}
	if t := r.frozen.Load(); t != nil {
		return t, nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if t := r.frozen.Load(); t != nil {
		return t, nil
	}
	t, err := newTables(r)
	if err != nil {
		return nil, err
	}
	r.frozen.Store(t)
	return t, nil
}

// slow tells whether numbers are copied one by one.
func (r *Registry) slow() bool {
	if r == nil {
		return !hostIsLittle()
	}
	return r.portable || !hostIsLittle()
}

func (r *Registry) walk() walk { return walk{portable: r.slow()} }

func (e *entry) newNode() *node {
	return &node{typ: e.typ, size: e.typ.Size(), id: e.id, kind: e.kind, name: shortName(e.typ), ops: e.forms[0].ops}
}
