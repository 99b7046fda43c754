package vsync

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"time"
)

// TimeoutAction says what a query does about members that have not replied when its time is over.
type TimeoutAction uint8

// The actions.
const (
	TimeoutNull  TimeoutAction = iota // return what there is, as if they had declined
	TimeoutAbort                      // fail with a *TimeoutError that names them
	TimeoutFail                       // report them as failed, as ReportFailure does, and return what there is
)

// Reply is one member's reply to a query.
type Reply[R any] struct {
	From  Address
	Value R
}

// Replies is what a query collected.
type Replies[R any] struct {
	List   []Reply[R] // in the order of arrival
	View   *View      // in which the query was delivered; nil when it ended before that
	Null   []Address  // members that declined
	Gone   []Address  // members that left or failed and had not replied
	Silent []Address  // members that were waited for no longer, because there was enough or the time was over
}

// Len returns the number of replies.
func (r Replies[R]) Len() int { return len(r.List) }

// Values returns the replies' values in the order of arrival.
func (r Replies[R]) Values() []R {
	list := make([]R, len(r.List))
	for i := range r.List {
		list[i] = r.List[i].Value
	}
	return list
}

// All goes through the repliers and their values in the order of arrival.
func (r Replies[R]) All() iter.Seq2[Address, R] {
	return func(yield func(Address, R) bool) {
		for i := range r.List {
			if !yield(r.List[i].From, r.List[i].Value) {
				return
			}
		}
	}
}

// Query multicasts a request, in the target's flavour (FIFO to a *Group), and waits for n replies of type R; or, when n
// is All, until every member of the view in which the request was delivered has replied, declined, left or failed; or,
// when n is Majority, for replies of more than half of them. It may return fewer replies than n, even none, when no
// more can come.
//
// The time for it is over when ctx's deadline is; without one after Config.QueryTimeout. What happens then is the
// target's TimeoutAction: see Group.OnTimeout. R is the type of the one value that repliers return; or Two, Three,
// Nothing, Values or Encoded.
//
// The errors are an *AbortError when a member aborts, a *ReplyError when a reply is not of type R, those of Send, and
// ErrNotMember or a kind of ErrNotRunning when this process stops being a member meanwhile. Replies that came before
// the error are returned with it. Called inside a handler of the group, which would wait for itself, it fails with
// ErrWouldBlock.
func Query[R any](ctx context.Context, t Target, n int, code Code, args ...any) (Replies[R], error) {
	q, err := ask(ctx, t.route(), request{want: n, code: code, args: args})
	if err != nil {
		return Replies[R]{}, err
	}
	return gather[R](ctx, q)
}

// OrderedQuery is Query with an Ordered request: all repliers answer in the same state.
func OrderedQuery[R any](ctx context.Context, t Target, n int, code Code, args ...any) (Replies[R], error) {
	return Query[R](ctx, as(t, Ordered), n, code, args...)
}

// CausalQuery is Query with a Causal request.
func CausalQuery[R any](ctx context.Context, t Target, n int, code Code, args ...any) (Replies[R], error) {
	return Query[R](ctx, as(t, Causal), n, code, args...)
}

// SafeQuery is Query with a Safe request: no handler runs before enough members hold it.
func SafeQuery[R any](ctx context.Context, t Target, n int, code Code, args ...any) (Replies[R], error) {
	return Query[R](ctx, as(t, Safe), n, code, args...)
}

// UnorderedQuery is Query with an Unordered request. It is hardly ever what one wants.
func UnorderedQuery[R any](ctx context.Context, t Target, n int, code Code, args ...any) (Replies[R], error) {
	return Query[R](ctx, as(t, Unordered), n, code, args...)
}

// RawQuery is Query with a Raw request, which may be lost on its way to some members: they are silent then. The
// replies are not lost.
func RawQuery[R any](ctx context.Context, t Target, n int, code Code, args ...any) (Replies[R], error) {
	return Query[R](ctx, as(t, Raw), n, code, args...)
}

// as returns a target in another flavour.
func as(t Target, f Flavour) *Route {
	r := &Route{t.route()}
	r.r.flavour = f
	return r
}

// QueryBytes is Query for a request and replies that are bytes as they are: handlers that take a *Message read Payload
// and call ReplyBytes.
func QueryBytes(ctx context.Context, t Target, n int, code Code, payload []byte) (Replies[[]byte], error) {
	q, err := ask(ctx, t.route(), request{want: n, code: code, payload: payload, raw: true})
	if err != nil {
		return Replies[[]byte]{}, err
	}
	return gather[[]byte](ctx, q)
}

// QueryEach is Query that hands over the replies as they arrive. The query ends when the loop does. A *ReplyError comes
// with the reply at fault, and the loop may go on; every other error, the same that Query would return, comes last and
// with the zero Reply.
func QueryEach[R any](ctx context.Context, t Target, n int, code Code, args ...any) iter.Seq2[Reply[R], error] {
	return func(yield func(Reply[R], error) bool) {
		q, err := ask(ctx, t.route(), request{want: n, code: code, args: args})
		if err != nil {
			yield(Reply[R]{}, err)
			return
		}
		each(ctx, q, yield)
	}
}

// Ask sends a request to one member, point-to-point, and waits for its reply. It returns ErrNoReply, with the reason in
// front, when the member declines, leaves, fails, or lets the time pass, unless the target's TimeoutAction says
// otherwise; the other errors are those of Query. The request is handled in order with this process's other
// point-to-point messages to the member, not with its multicasts.
func Ask[R any](ctx context.Context, t Target, to Address, code Code, args ...any) (R, error) {
	return answerOf[R](ctx, t, request{to: to, peer: true, want: 1, code: code, args: args})
}

// AskBytes is Ask for a request and a reply that are bytes as they are.
func AskBytes(ctx context.Context, t Target, to Address, code Code, payload []byte) ([]byte, error) {
	return answerOf[[]byte](ctx, t, request{to: to, peer: true, want: 1, code: code, payload: payload, raw: true})
}

// RawAsk is Ask by a request that may be lost: the member is silent then. Its reply is not lost, unless it replies with
// Message.RawReply.
func RawAsk[R any](ctx context.Context, t Target, to Address, code Code, args ...any) (R, error) {
	return answerOf[R](ctx, as(t, Raw), request{to: to, peer: true, want: 1, code: code, args: args})
}

func answerOf[R any](ctx context.Context, t Target, r request) (R, error) {
	var none R
	q, err := ask(ctx, t.route(), r)
	if err != nil {
		return none, err
	}
	replies, err := gather[R](ctx, q)
	switch g := q.route.g; {
	case err != nil:
		return none, err
	case len(replies.List) > 0:
		return replies.List[0].Value, nil
	case len(replies.Null) > 0:
		return none, g.fail("ask", fmt.Errorf("%v declined: %w", r.to, ErrNoReply))
	case len(replies.Gone) > 0:
		return none, g.fail("ask", fmt.Errorf("%v left or failed: %w", r.to, ErrNoReply))
	default:
		return none, g.fail("ask", fmt.Errorf("%v was silent: %w", r.to, ErrNoReply))
	}
}

// request is what a query asks.
type request struct {
	want    int
	code    Code
	args    []any
	payload []byte
	raw     bool // payload instead of args
	peer    bool // to one member, point-to-point
	to      Address
}

// query is one query under way.
type query struct {
	*collector
	route route
	code  Code
	timer *time.Timer
	late  chan struct{} // closed when the time is over; nil when ctx says when
	taken int           // replies that were handed over
}

// ask sends a request.
func ask(ctx context.Context, r route, q request) (*query, error) {
	g := r.g
	err := g.sendable(q.code, r.flavour)
	switch {
	case err != nil:
	case g.inner.OnHandler():
		err = fmt.Errorf("%w: the replies could not be handled", ErrWouldBlock)
	case q.want < Majority:
		err = fmt.Errorf("%w: %d replies", ErrArgument, q.want)
	case ctx.Err() != nil: // there is no time left to answer: nothing is asked
		err = context.Cause(ctx)
	}
	if err != nil {
		return nil, g.fail("query", err)
	}
	out := &query{route: r, code: q.code, collector: &collector{
		call: g.sys.calls.Add(1), want: q.want, waiting: make(map[Address]struct{}),
		early: make(map[Address]struct{}), wake: make(chan struct{}, 1),
	}}
	switch v := g.view.Load(); {
	case q.peer:
		out.expect(v, []Address{q.to})
	case r.flavour == Raw && v != nil: // it may be lost on its way to ourselves, too
		out.expect(v, r.filter(v))
	}
	g.pending.start(out.collector)
	if err := g.sendRequest(ctx, &r, &q, out.call); err != nil {
		g.pending.stop(out.collector)
		return nil, g.fail("query", err)
	}
	if _, ok := ctx.Deadline(); !ok {
		late := make(chan struct{})
		out.late = late
		out.timer = time.AfterFunc(g.sys.config.QueryTimeout, func() { close(late) })
	}
	return out, nil
}

// sendRequest puts a request together and sends it.
func (g *Group) sendRequest(ctx context.Context, r *route, q *request, call uint64) error {
	buf := g.sys.newBuffer()
	defer buf.free()
	p := parcel{flavour: r.flavour, code: q.code, flags: flagQuery}
	b := buf.b[:0]
	if r.listed && !q.peer {
		p.more |= moreListed
		b = appendList(b, r.to)
	}
	b = binary.AppendUvarint(b, call)
	var err error
	if q.raw {
		b = append(b, q.payload...)
	} else {
		p.flags |= flagTyped
		if r.visible {
			b, err = g.sys.types.Append(b, r.to)
		}
		if err == nil {
			b, err = g.sys.types.Append(b, q.args...)
		}
	}
	if buf.b = b; err != nil {
		return err
	}
	switch p.body = b; {
	case q.peer && r.flavour == Raw:
		return g.postRawTo(ctx, q.to, p)
	case q.peer:
		return g.postTo(ctx, q.to, p)
	}
	return g.post(ctx, &p)
}

// end forgets the query.
func (q *query) end() {
	q.route.g.pending.stop(q.collector)
	if q.timer != nil {
		q.timer.Stop()
	}
}

// next waits for the next reply. It returns false when there is no more, and then why, nil if the query went well.
func (q *query) next(ctx context.Context) (reply, bool, error) {
	g := q.route.g
	why := outcomeMore
	for {
		g.pending.mu.Lock()
		if q.abort == nil && q.taken < len(q.replies) {
			r := q.replies[q.taken]
			q.taken++
			g.pending.mu.Unlock()
			return r, true, nil
		}
		abort := q.abort
		g.pending.mu.Unlock()
		if abort != nil {
			return reply{}, false, g.fail("query", &AbortError{Reason: string(abort.body), From: abort.from})
		}
		if why != outcomeMore {
			return reply{}, false, q.verdict(ctx, why)
		}
		why = q.wait(ctx, g, q.late)
	}
}

// verdict makes the error of a query that got what it could.
func (q *query) verdict(ctx context.Context, why outcome) error {
	g := q.route.g
	switch why {
	case outcomeContext:
		return g.fail("query", context.Cause(ctx))
	case outcomeEnded:
		return g.fail("query", g.inner.Err())
	case outcomeTimeout:
		return g.fail("query", q.timedOut())
	}
	return nil
}

// timedOut does what the target wants about silent members.
func (q *query) timedOut() error {
	g := q.route.g
	g.pending.mu.Lock()
	q.over = true
	silent, known := q.silent(), q.members != nil
	g.pending.mu.Unlock()
	if !known {
		return &TimeoutError{}
	}
	switch q.route.action {
	case TimeoutAbort:
		return &TimeoutError{Silent: silent}
	case TimeoutFail:
		for _, a := range silent {
			if a != g.sys.self {
				// One that is gone already needs no report.
				_ = g.inner.Report(a, fmt.Sprintf("no reply to query %d of %v", q.code, g.sys.self))
			}
		}
	}
	return nil
}

// gather waits for the end of a query.
func gather[R any](ctx context.Context, q *query) (Replies[R], error) {
	defer q.end()
	var all Replies[R]
	g := q.route.g
	var fault error
	for {
		r, ok, err := q.next(ctx)
		if !ok {
			q.fill(&all.View, &all.Null, &all.Gone, &all.Silent)
			return all, errors.Join(err, fault)
		}
		v, err := decodeReply[R](g.sys.types, r)
		if err != nil {
			if fault == nil {
				fault = g.fail("query", &ReplyError{From: r.from, Err: err})
			}
			continue
		}
		all.List = append(all.List, Reply[R]{From: r.from, Value: v})
	}
}

// fill copies what is known about members that did not reply.
func (q *query) fill(view **View, null, gone, silent *[]Address) {
	g := q.route.g
	g.pending.mu.Lock()
	defer g.pending.mu.Unlock()
	*view, *null, *gone, *silent = q.view, q.nulls, q.gone, q.silent()
}

func each[R any](ctx context.Context, q *query, yield func(Reply[R], error) bool) {
	defer q.end()
	g := q.route.g
	for {
		r, ok, err := q.next(ctx)
		if !ok {
			if err != nil {
				yield(Reply[R]{}, err)
			}
			return
		}
		v, err := decodeReply[R](g.sys.types, r)
		if err != nil {
			err = g.fail("query", &ReplyError{From: r.from, Err: err})
		}
		if !yield(Reply[R]{From: r.from, Value: v}, err) {
			return
		}
	}
}
