package bpf

import (
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// namespace is the network namespace of an interface. Names of sockets and numbers of interfaces mean something only
// in there, while methods may be called by a thread that is elsewhere.
type namespace struct {
	fd    int
	inode uint64
}

const namespaceFile = "/proc/thread-self/ns/net"

// currentNamespace opens the calling thread's.
func currentNamespace() (*namespace, error) {
	fd, err := unix.Open(namespaceFile, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", namespaceFile, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, errors.Join(fmt.Errorf("stat %s: %w", namespaceFile, err), unix.Close(fd))
	}
	return &namespace{fd: fd, inode: st.Ino}, nil
}

// do runs fn on a thread that is in the namespace.
func (n *namespace) do(fn func() error) error {
	runtime.LockOSThread()
	unlock := true
	defer func() {
		if unlock {
			runtime.UnlockOSThread()
		}
	}()
	var st unix.Stat_t
	if err := unix.Stat(namespaceFile, &st); err != nil {
		return fmt.Errorf("stat %s: %w", namespaceFile, err)
	}
	if st.Ino == n.inode {
		return fn()
	}
	home, err := currentNamespace()
	if err != nil {
		return err
	}
	defer func() { _ = home.close() }()
	if err := unix.Setns(n.fd, unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter the interface's network namespace: %w", err)
	}
	err = fn()
	if back := unix.Setns(home.fd, unix.CLONE_NEWNET); back != nil {
		unlock = false // the thread is of no use to anybody else: let it end with its goroutine
		return errors.Join(err, fmt.Errorf("return to the thread's network namespace: %w", back))
	}
	return err
}

func (n *namespace) close() error { return unix.Close(n.fd) }
