package vsync

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"slices"
	"strings"

	"github.com/khamsin-io/khamsin/vsync/codec"
)

// handler is one function that takes messages of a code.
type handler struct {
	code    Code
	name    string         // of the function, for people
	types   []reflect.Type // of the values that it takes
	any     bool           // takes every message of its code, whatever is in it
	answers bool           // returns the reply to queries
	// bind makes run, when the types are known for good
	bind func(r *codec.Registry) error
	// run passes a message to the function. The error is a fault of the message: *codec.TypeError or *codec.CountError
	// when its values are not of the handler's types. The lane says which of the group's two executors calls.
	run func(m *Message, lane int) error

	sig codec.Signature // known once bound
}

// Codes of what has no code, in logs and traces.
const (
	codeView  Code = -2
	codeState Code = -3
)

var (
	messageType = reflect.TypeFor[*Message]()
	contextType = reflect.TypeFor[context.Context]()
	errorType   = reflect.TypeFor[error]()
)

// Handle adds a handler for messages with a code. f is one of
//
//	func(m *Message)                         every message of the code, whatever it carries
//	func(a A, b B, ...)                      messages that carry values of exactly these types
//	func(m *Message, a A, b B, ...)          the same, with the message itself
//	func(...) R, func(...) (R, ..., error)   the same, and what it returns is the reply to queries
//
// A context.Context may stand in the place of the *Message. A code may have handlers for several lists of types; each
// message runs those for the types that it carries, in the order in which they were added. At most one of them may
// return replies. An error that the function returns aborts the query with its text.
//
// What f is made of is found once, here; the values are then passed by reflection. Handle1 and its like do without.
// Members of a group must have handlers for the same codes and types; a process that differs is refused with a
// *SignatureError when it joins. Handle must be called before Join; the code must not be negative.
func (g *Group) Handle(code Code, f any) error {
	h, err := reflectHandler(f)
	if err != nil {
		return g.fail("handle", fmt.Errorf("code %d: %w", code, err))
	}
	return g.addHandler(code, h)
}

func (g *Group) addHandler(code Code, h *handler) error {
	if code < 0 {
		return g.fail("handle", fmt.Errorf("%w: %d", ErrCode, code))
	}
	if h == nil {
		return g.fail("handle", fmt.Errorf("code %d: %w: a nil function", code, ErrHandler))
	}
	h.code = code
	var fault error
	err := g.declare("handle", func() {
		for _, other := range g.handlers[code] {
			if h.answers && other.answers && slices.Equal(h.types, other.types) {
				fault = fmt.Errorf("%w: code %d, %s and %s", ErrTwoAnswers, code, other.name, h.name)
				return
			}
		}
		g.handlers[code] = append(g.handlers[code], h)
	})
	return errors.Join(err, g.fail("handle", fault))
}

// nameOf returns the name of a function, without the path of its package.
func nameOf(f any) string {
	v := reflect.ValueOf(f)
	if v.Kind() != reflect.Func || v.IsNil() {
		return fmt.Sprintf("%T", f)
	}
	name := runtime.FuncForPC(v.Pointer()).Name()
	return name[strings.LastIndexByte(name, '/')+1:]
}

// anyHandler makes the handler that gets every message.
func anyHandler(f func(m *Message), name string) *handler {
	return &handler{
		name: name, any: true,
		bind: func(*codec.Registry) error { return nil },
		run:  func(m *Message, _ int) error { f(m); return nil },
	}
}

// reflectHandler finds out what a function takes and returns.
func reflectHandler(f any) (*handler, error) {
	if plain, ok := f.(func(*Message)); ok && plain != nil {
		return anyHandler(plain, nameOf(f)), nil
	}
	v := reflect.ValueOf(f)
	if v.Kind() != reflect.Func || v.IsNil() {
		return nil, fmt.Errorf("%w: %T is no function", ErrHandler, f)
	}
	t := v.Type()
	if t.IsVariadic() {
		return nil, fmt.Errorf("%w: %v takes a variable number of arguments", ErrHandler, t)
	}
	c := &reflected{fn: v}
	h := &handler{name: nameOf(f), bind: c.bind, run: c.run}
	for i := range t.NumIn() {
		switch in := t.In(i); {
		case i == 0 && in == messageType:
			c.lead = leadMessage
		case i == 0 && in == contextType:
			c.lead = leadContext
		case in == messageType, in == contextType:
			return nil, fmt.Errorf("%w: %v: %v must be the first argument", ErrHandler, t, in)
		default:
			c.types = append(c.types, in)
		}
	}
	h.types = c.types
	c.results = t.NumOut()
	if c.fails = c.results > 0 && t.Out(c.results-1) == errorType; c.fails {
		c.results--
	}
	h.answers = c.results > 0 || c.fails
	return h, nil
}

// lead is what a function takes in front of the values.
type lead uint8

const (
	leadNone lead = iota
	leadMessage
	leadContext
)

// reflected is a function that is called by reflection.
type reflected struct {
	fn      reflect.Value
	lead    lead
	types   []reflect.Type
	results int  // values of the reply
	fails   bool // an error is the last result
	codec   *codec.Registry
	slots   [lanes]slot
}

// slot is the place of one executor's arguments, used again for each message.
type slot struct {
	ptrs []any           // of the variables that are decoded into
	args []reflect.Value // what the function gets: the lead, then the variables
}

// lanes is the number of a group's executors.
const lanes = 2

// The lanes.
const (
	laneCast = iota // multicasts, views and state
	lanePeer        // point-to-point messages
)

func (c *reflected) bind(r *codec.Registry) error {
	c.codec = r
	for i := range c.slots {
		s := &c.slots[i]
		if c.lead != leadNone {
			s.args = append(s.args, reflect.Value{})
		}
		for _, t := range c.types {
			p := reflect.New(t)
			s.ptrs = append(s.ptrs, p.Interface())
			s.args = append(s.args, p.Elem())
		}
	}
	return nil
}

func (c *reflected) run(m *Message, lane int) error {
	s := &c.slots[lane]
	if err := c.codec.Unmarshal(m.Payload, s.ptrs...); err != nil {
		return err
	}
	switch c.lead {
	case leadMessage:
		s.args[0] = reflect.ValueOf(m)
	case leadContext:
		s.args[0] = reflect.ValueOf(&m.ctx).Elem()
	}
	out := c.fn.Call(s.args)
	for _, p := range s.args[len(s.args)-len(s.ptrs):] {
		p.SetZero() // the executor keeps nothing alive that the function let go
	}
	if len(out) > 0 {
		c.reply(m, out)
	}
	return nil
}

// reply passes on what the function returned.
func (c *reflected) reply(m *Message, out []reflect.Value) {
	if !m.Query {
		return
	}
	if c.fails {
		if err, _ := out[c.results].Interface().(error); err != nil {
			m.give(func() error { return m.abort(err.Error()) })
			return
		}
	}
	vals := make([]any, c.results)
	for i := range vals {
		vals[i] = out[i].Interface()
	}
	m.give(func() error { return m.reply(vals) })
}

// bindHandlers makes the handlers ready, and the tables in which they are found. It is called once, before the first
// message.
func (g *Group) bindHandlers() error {
	types := g.sys.types
	if err := types.Freeze(); err != nil {
		return err
	}
	var faults []error
	g.table = table{others: make(map[Code]*codeEntry)}
	for code, list := range g.handlers {
		e := &codeEntry{handlers: list}
		for _, h := range list {
			if err := h.prepare(types); err != nil {
				faults = append(faults, fmt.Errorf("code %d, handler %s: %w", code, h.name, err))
			}
		}
		if err := e.index(types); err != nil {
			faults = append(faults, err)
		}
		g.table.set(code, e)
	}
	return errors.Join(faults...)
}

// prepare binds the handler and signs it.
func (h *handler) prepare(types *codec.Registry) (err error) {
	if !h.any {
		if h.sig, err = types.SignatureOfTypes(h.types...); err != nil {
			return err
		}
	}
	return h.bind(types)
}

// table finds what a group has for a code.
type table struct {
	few    [64]*codeEntry // for the codes from 0 on, which cost least
	others map[Code]*codeEntry
}

func (t *table) get(c Code) *codeEntry {
	if uint(c) < uint(len(t.few)) {
		return t.few[c]
	}
	return t.others[c]
}

func (t *table) set(c Code, e *codeEntry) {
	if uint(c) < uint(len(t.few)) {
		t.few[c] = e
	} else {
		t.others[c] = e
	}
}

// codeEntry is what a group has for one code.
type codeEntry struct {
	handlers []*handler                 // in the order in which they were added
	only     *handler                   // the one handler, when there is one
	byShape  map[codec.Shape][]*handler // otherwise: those for each list of types
	others   []*handler                 // and those for everything else
	labels   [lanes]context.Context     // pprof labels, made when first needed
}

// index fills the tables.
func (e *codeEntry) index(types *codec.Registry) error {
	if len(e.handlers) == 1 {
		e.only = e.handlers[0]
		return nil
	}
	e.byShape = make(map[codec.Shape][]*handler)
	shapes := make([]codec.Shape, len(e.handlers))
	for i, h := range e.handlers {
		if h.any {
			e.others = append(e.others, h)
			continue
		}
		var err error
		if shapes[i], err = types.ShapeOf(h.types...); err != nil {
			return err
		}
		e.byShape[shapes[i]] = nil
	}
	for shape := range e.byShape {
		for i, h := range e.handlers {
			if h.any || shapes[i] == shape {
				e.byShape[shape] = append(e.byShape[shape], h)
			}
		}
	}
	return nil
}
