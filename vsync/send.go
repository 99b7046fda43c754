package vsync

import "context"

// SendBytes multicasts a payload under a code to all members of the group, the sender too.
//
// It returns as soon as the message has its place among this process's messages; delivery follows, here and elsewhere,
// unless this process fails or leaves before. With nil returned and this process staying a member, every member of the
// view in which it is delivered gets it once, in the order that f promises.
//
// When too much is under way it waits until ctx ends; inside a handler of the group it returns ErrWouldBlock instead. A
// message above Config.MaxMessage is refused with ErrTooLarge. The payload is the caller's again when SendBytes
// returns.
func (g *Group) SendBytes(ctx context.Context, f Flavour, code Code, payload []byte) error {
	if g.inner == nil {
		return g.fail("send", ErrNotRunning)
	}
	if code < 0 {
		return g.fail("send", ErrCode)
	}
	err := g.inner.Submit(ctx, f, headOf(code), payload)
	if err != nil {
		return g.fail("send", err)
	}
	return nil
}

// SendBytesTo sends a payload under a code to one member of the group. Messages from one member to another arrive in
// the order sent, each once, and are handled on their own goroutine: nothing is promised about their order among
// multicasts. It waits, and refuses, as SendBytes does; a process that is not in the present view is refused with
// ErrNotMember.
func (g *Group) SendBytesTo(ctx context.Context, to Address, code Code, payload []byte) error {
	if g.inner == nil {
		return g.fail("send", ErrNotRunning)
	}
	if code < 0 {
		return g.fail("send", ErrCode)
	}
	err := g.inner.SubmitTo(ctx, to, headOf(code), payload)
	if err != nil {
		return g.fail("send", err)
	}
	return nil
}
