package vsync

import (
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

	// ErrTransferAborted means that every process that the state was for has left or failed.
	ErrTransferAborted = engine.ErrTransferAborted

	// ErrHandlerStuck means that Close gave up waiting for a handler.
	ErrHandlerStuck = host.ErrStuck
)

// PoisonError says why the other processes declared this one failed.
type PoisonError struct{ Reason string }

// Error returns the reason.
func (e *PoisonError) Error() string { return "poisoned: " + e.Reason }

// Is makes errors.Is(err, ErrPoisoned) and errors.Is(err, ErrNotRunning) true.
func (e *PoisonError) Is(target error) bool { return target == ErrPoisoned || target == ErrNotRunning }

// public turns an error of the host or the engine into one of this package.
func public(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, engine.ErrPoisoned):
		return &PoisonError{Reason: err.Error()}
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
