package vsync

import (
	"context"
	"fmt"
	"reflect"

	"github.com/khamsin-io/khamsin/vsync/codec"
)

// Handle1 adds a handler for messages that carry one value of type A. It is Group.Handle without reflection: passing a
// message on allocates what the value holds, so nothing for numbers, and for structs and arrays of them.
func Handle1[A any](g *Group, code Code, f func(m *Message, a A)) error {
	c := new(codec.Coder[A])
	run := func(m *Message) error {
		a, rest, err := c.Decode(m.Payload)
		if err = whole(rest, err, 1); err == nil {
			f(m, a)
		}
		return err
	}
	return g.addHandler(code, typedHandler(f, types1[A](), run, bindTo(c)))
}

// Handle2 adds a handler for messages that carry an A and a B: see Handle1.
func Handle2[A, B any](g *Group, code Code, f func(m *Message, a A, b B)) error {
	c, d := new(codec.Coder[A]), new(codec.Coder[B])
	run := func(m *Message) error {
		a, b, err := decode2(c, d, m.Payload)
		if err == nil {
			f(m, a, b)
		}
		return err
	}
	return g.addHandler(code, typedHandler(f, types2[A, B](), run, bindTo(c), bindTo(d)))
}

// Handle3 adds a handler for messages that carry an A, a B and a C: see Handle1.
func Handle3[A, B, C any](g *Group, code Code, f func(m *Message, a A, b B, c C)) error {
	c, d, e := new(codec.Coder[A]), new(codec.Coder[B]), new(codec.Coder[C])
	run := func(m *Message) error {
		a, rest, err := c.Decode(m.Payload)
		if err != nil {
			return err
		}
		b, rest, err := d.Decode(rest)
		if err != nil {
			return err
		}
		x, rest, err := e.Decode(rest)
		if err = whole(rest, err, 3); err == nil {
			f(m, a, b, x)
		}
		return err
	}
	types := append(types2[A, B](), reflect.TypeFor[C]())
	return g.addHandler(code, typedHandler(f, types, run, bindTo(c), bindTo(d), bindTo(e)))
}

// Answer1 adds a handler that replies to queries with one argument: with the value that it returns, or, when it returns
// an error, by aborting the query.
func Answer1[A, R any](g *Group, code Code, f func(m *Message, a A) (R, error)) error {
	c, out := new(codec.Coder[A]), new(codec.Coder[R])
	run := func(m *Message) error {
		a, rest, err := c.Decode(m.Payload)
		if err = whole(rest, err, 1); err == nil {
			r, err := f(m, a)
			answer(m, out, r, err)
		}
		return err
	}
	return g.addHandler(code, answering(typedHandler(f, types1[A](), run, bindTo(c), bindTo(out))))
}

// Answer2 adds a handler that replies to queries with two arguments: see Answer1.
func Answer2[A, B, R any](g *Group, code Code, f func(m *Message, a A, b B) (R, error)) error {
	c, d, out := new(codec.Coder[A]), new(codec.Coder[B]), new(codec.Coder[R])
	run := func(m *Message) error {
		a, b, err := decode2(c, d, m.Payload)
		if err == nil {
			r, err := f(m, a, b)
			answer(m, out, r, err)
		}
		return err
	}
	return g.addHandler(code, answering(typedHandler(f, types2[A, B](), run, bindTo(c), bindTo(d), bindTo(out))))
}

// Send1 is Send, in the target's flavour, of one value, without an allocation.
func Send1[A any](ctx context.Context, t Target, code Code, a A) error {
	return sendTyped(ctx, t, code, func(types *codec.Registry, b []byte) ([]byte, error) {
		return codec.AppendValue(types, b, a)
	})
}

// Send2 is Send, in the target's flavour, of two values, without an allocation.
func Send2[A, B any](ctx context.Context, t Target, code Code, a A, b B) error {
	return sendTyped(ctx, t, code, func(types *codec.Registry, buf []byte) ([]byte, error) {
		buf, err := codec.AppendValue(types, buf, a)
		if err != nil {
			return buf, err
		}
		return codec.AppendValue(types, buf, b)
	})
}

// Send1To is SendTo of one value, without an allocation of its own.
func Send1To[A any](ctx context.Context, g *Group, to Address, code Code, a A) error {
	err := g.sendable(code, FIFO)
	if err == nil {
		buf := g.sys.newBuffer()
		defer buf.free()
		if buf.b, err = codec.AppendValue(g.sys.types, buf.b[:0], a); err == nil {
			err = g.postTo(ctx, to, parcel{code: code, flags: flagTyped, body: buf.b})
		}
	}
	return g.fail("send", err)
}

// sendTyped multicasts what values appends. The function does not outlive the call.
func sendTyped(
	ctx context.Context, t Target, code Code, values func(types *codec.Registry, b []byte) ([]byte, error),
) error {
	r := t.route()
	g := r.g
	if err := g.sendable(code, r.flavour); err != nil {
		return g.fail("send", err)
	}
	buf := g.sys.newBuffer()
	defer buf.free()
	p, err := r.begin(buf, code)
	if err == nil {
		buf.b, err = values(g.sys.types, buf.b)
	}
	if err != nil {
		return g.fail("send", err)
	}
	p.body = buf.b
	return g.fail("send", g.post(ctx, &p))
}

// binder makes something ready when the types are known for good.
type binder func(r *codec.Registry) error

func bindTo[T any](c *codec.Coder[T]) binder {
	return func(r *codec.Registry) (err error) {
		*c, err = codec.CoderOf[T](r)
		return err
	}
}

func types1[A any]() []reflect.Type    { return []reflect.Type{reflect.TypeFor[A]()} }
func types2[A, B any]() []reflect.Type { return append(types1[A](), reflect.TypeFor[B]()) }

func typeName[T any]() string { return reflect.TypeFor[T]().String() }

// typedHandler makes a handler whose argument types are known to the compiler, nil of a nil function.
func typedHandler(f any, types []reflect.Type, run func(*Message) error, binders ...binder) *handler {
	if reflect.ValueOf(f).IsNil() {
		return nil
	}
	return &handler{
		name: nameOf(f), types: types,
		run: func(m *Message, _ int) error { return run(m) },
		bind: func(r *codec.Registry) error {
			for _, b := range binders {
				if err := b(r); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// answering says that a handler replies.
func answering(h *handler) *handler {
	if h != nil {
		h.answers = true
	}
	return h
}

// whole makes values left over an error.
func whole(rest []byte, err error, n int) error {
	if err == nil && len(rest) > 0 {
		return &codec.CountError{Wanted: n, Found: n + 1}
	}
	return err
}

func decode2[A, B any](c *codec.Coder[A], d *codec.Coder[B], body []byte) (A, B, error) {
	var b B
	a, rest, err := c.Decode(body)
	if err == nil {
		b, rest, err = d.Decode(rest)
	}
	return a, b, whole(rest, err, 2)
}

// answer replies with what a handler returned.
func answer[R any](m *Message, out *codec.Coder[R], r R, err error) {
	switch {
	case !m.Query || m.duty != dutyOpen:
	case err != nil:
		m.give(func() error { return m.abort(err.Error()) })
	default:
		m.give(func() error {
			return m.send(replyValues, func(b []byte) ([]byte, error) { return out.Append(b, r) })
		})
	}
}

// Register makes values of type T known to a system by an id, which must be the same in all processes: 0 to 127. T is a
// struct whose exported fields travel, but for those tagged `vsync:"-"`, or a type that encodes itself: see
// codec.Register. Types must be registered before the first group is joined; later it fails with codec.ErrFrozen.
func Register[T any](s *System, id uint16) error {
	if s == nil {
		return fmt.Errorf("vsync: register: %w", ErrNotRunning)
	}
	if err := codec.Register[T](s.types, id); err != nil {
		return fmt.Errorf("vsync: register: %w", err)
	}
	return nil
}
