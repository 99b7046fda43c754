package bpf

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// claim is a name that one process at a time can hold: a socket in the abstract name space of Unix sockets, which
// belongs to the network namespace and goes with its holder, however that ends.
type claim struct{ fd int }

// tryClaim claims a name on an interface, and returns nil when somebody else holds it. The caller is in the namespace.
func tryClaim(ifIndex int, name string) (*claim, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socket for claim %q: %w", name, err)
	}
	err = unix.Bind(fd, &unix.SockaddrUnix{Name: fmt.Sprintf("@khamsin/xdp/%d/%s", ifIndex, name)})
	if err == nil {
		return &claim{fd: fd}, nil
	}
	if errors.Is(err, unix.EADDRINUSE) {
		return nil, unix.Close(fd)
	}
	return nil, errors.Join(fmt.Errorf("claim %q: %w", name, err), unix.Close(fd))
}

func (c *claim) release() error { return unix.Close(c.fd) }

// How long a change of rules waits for another process that is making one. A change takes well under a millisecond.
const (
	lockPause = 200 * time.Microsecond
	lockTries = 10000
)

// locked runs fn while no other process changes what the processes share. The caller is in the namespace.
func locked(ifIndex int, fn func() error) error {
	for range lockTries {
		c, err := tryClaim(ifIndex, "lock")
		if err != nil {
			return err
		}
		if c != nil {
			return errors.Join(fn(), c.release())
		}
		time.Sleep(lockPause)
	}
	return ErrBusy
}

// slotName is the name by which a slot is claimed.
func slotName(slot uint32) string { return fmt.Sprintf("slot/%d", slot) }
