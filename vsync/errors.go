package vsync

import (
	"context"
	"errors"
	"fmt"

	"github.com/khamsin-io/khamsin/vsync/internal/engine"
	"github.com/khamsin-io/khamsin/vsync/internal/host"
)

// Errors. What the package returns wraps one of them, with the operation and the group in front; compare with
// errors.Is.
var (
	// ErrNotRunning means that the system is not started, or over. ErrShutdown, ErrPoisoned and ErrOracleLost are kinds
	// of it.
	ErrNotRunning = errors.New("system not running")

	// ErrShutdown means that the system was closed in this process.
	ErrShutdown = fmt.Errorf("%w: shut down", ErrNotRunning)

	// ErrPoisoned means that the other processes declared this one failed. The error is a *PoisonError.
	ErrPoisoned = errors.New("poisoned")

	// ErrOracleLost means that this process lost contact with the membership service.
	ErrOracleLost = fmt.Errorf("%w: %w", ErrNotRunning, engine.ErrOracleLost)

	// ErrNoOracle means that no process of the membership service answered, and that this process may not serve as one:
	// it is not eligible, its host is not one of Network.Hosts, or no majority of those hosts was heard.
	ErrNoOracle = fmt.Errorf("%w: no ORACLE answered, and this process may not found one", ErrNotRunning)

	// ErrSystemKey means that there is a system of this name with another key, or that one of the two has none.
	ErrSystemKey = fmt.Errorf("%w: %w", ErrNotRunning, engine.ErrOtherKey)

	// ErrGroupKey means that the members of a group have another key, or that one of the two sides has none, or that a
	// message was not to be opened with the group's key.
	ErrGroupKey = errors.New("group key")

	// ErrNotMember means that this process is not, or no longer, a member of the group.
	ErrNotMember = engine.ErrNotMember

	// ErrTerminated means that a member ended the group for all.
	ErrTerminated = engine.ErrTerminated

	// ErrGroupExists means that Create met a group that has members.
	ErrGroupExists = engine.ErrGroupExists

	// ErrSignature means that the members of the group have other handlers than this process.
	ErrSignature = engine.ErrSignature

	// ErrTooLarge means that a message is longer than the limit: see Config.MaxMessage.
	ErrTooLarge = host.ErrTooLarge

	// ErrWouldBlock means that a call inside a handler would have to wait for that handler's group.
	ErrWouldBlock = host.ErrWouldBlock

	// ErrJoined means that a Group was joined before, or that this process is already a member under that name.
	ErrJoined = errors.New("already joined")

	// ErrCode means that a request code is negative, so reserved for the library.
	ErrCode = errors.New("negative request codes are reserved")

	// ErrHandler means that a function cannot be a handler, or that there is none for what arrived.
	ErrHandler = errors.New("no handler")

	// ErrTwoAnswers means that two handlers for one code and the same types would both reply to queries.
	ErrTwoAnswers = errors.New("two handlers would answer one query")

	// ErrArgument means that an argument is out of its range.
	ErrArgument = errors.New("bad argument")

	// ErrNoReply means that the member that was asked did not reply.
	ErrNoReply = errors.New("no reply")

	// ErrAborted means that a member made a query fail. The error is an *AbortError.
	ErrAborted = errors.New("query aborted")

	// ErrReplied means that a query was answered before.
	ErrReplied = errors.New("already replied")

	// ErrNoQuery means that a message is no query, so nobody waits for a reply.
	ErrNoQuery = errors.New("not a query")

	// ErrNotInHandler means that a Message was asked to reply after its handler, or on another goroutine: see
	// Message.Detach.
	ErrNotInHandler = errors.New("not inside the handler of the message; use Detach")

	// ErrNoKey means that something needs the system's key, and the system has none: see WithSystemKey.
	ErrNoKey = errors.New("the system has no key")

	// ErrTransferAborted means that every process that the state was for has left or failed.
	ErrTransferAborted = engine.ErrTransferAborted

	// ErrHandlerStuck means that Close gave up waiting for a handler.
	ErrHandlerStuck = host.ErrStuck
)

// PoisonError says why the other processes declared this one failed.
type PoisonError struct {
	Reason  string  // of the accusation, such as "silent for more than 1.2s"
	Accuser Address // the first process that made it; nobody when the one that told does not know
	Teller  Address // the process that told; nobody when this one read of it in the membership service's log
}

// Error says who accused this process, why, and who told it.
func (e *PoisonError) Error() string {
	s := fmt.Sprintf("poisoned: accused by %v: %s", e.Accuser, e.Reason)
	if !e.Teller.IsZero() {
		s += fmt.Sprintf(" (told by %v)", e.Teller)
	}
	return s
}

// Is makes errors.Is(err, ErrPoisoned) and errors.Is(err, ErrNotRunning) true.
func (e *PoisonError) Is(target error) bool { return target == ErrPoisoned || target == ErrNotRunning }

// AbortError says why a member made a query fail.
type AbortError struct {
	Reason string
	From   Address
}

// Error returns the reason.
func (e *AbortError) Error() string { return fmt.Sprintf("%v by %v: %s", ErrAborted, e.From, e.Reason) }

// Is makes errors.Is(err, ErrAborted) true.
func (e *AbortError) Is(target error) bool { return target == ErrAborted }

// ReplyError says whose reply could not be read.
type ReplyError struct {
	From Address
	Err  error
}

// Error names the member and the fault.
func (e *ReplyError) Error() string { return fmt.Sprintf("reply of %v: %v", e.From, e.Err) }

// Unwrap returns the fault.
func (e *ReplyError) Unwrap() error { return e.Err }

// TimeoutError names the members that had not replied when a query's time was over: none when it was over before the
// query was delivered here, so that nobody knows whom it was for.
type TimeoutError struct{ Silent []Address }

// Error names the members.
func (e *TimeoutError) Error() string {
	if len(e.Silent) == 0 {
		return "the time was over before the query was delivered here"
	}
	return fmt.Sprintf("no reply in time from %v", e.Silent)
}

// Is makes errors.Is(err, context.DeadlineExceeded) and errors.Is(err, ErrNoReply) true.
func (e *TimeoutError) Is(target error) bool {
	return target == context.DeadlineExceeded || target == ErrNoReply
}

// public turns an error of the host or the engine into one of this package.
func public(err error) error {
	var poison *engine.PoisonError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &poison):
		return &PoisonError{Reason: poison.Reason, Accuser: poison.Accuser, Teller: poison.Teller}
	case errors.Is(err, engine.ErrOtherKey):
		return ErrSystemKey
	case errors.Is(err, engine.ErrOracleLost):
		return ErrOracleLost
	case errors.Is(err, engine.ErrStopped), errors.Is(err, host.ErrEnded), errors.Is(err, host.ErrKilled):
		return ErrShutdown
	case errors.Is(err, engine.ErrLeft):
		return ErrNotMember
	case errors.Is(err, engine.ErrTerminated):
		return fmt.Errorf("%w: %w", ErrNotMember, err)
	}
	return err
}
