//go:build cgo && rdma

package rdma

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/clock"
)

// ucmDevice is the connection manager's device.
const ucmDevice = "/dev/infiniband/rdma_cm"

// joinLimit is how long the subnet manager may take to make somebody a member of a group.
const joinLimit = 5 * time.Second

// manager joins groups through the kernel's RDMA connection manager, which asks the subnet manager on InfiniBand, and
// the network by IGMP on RoCE. Its methods may be called by any goroutine.
type manager struct {
	mu     sync.Mutex
	fd     int
	id     uint32
	number uint64
	clock  clock.Source
}

// openManager makes a manager on the device that has an IPv4 address.
func openManager(ip netip.Addr) (m *manager, err error) {
	fd, err := unix.Open(ucmDevice, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("rdma: %s: %w: load rdma_ucm", ucmDevice, err)
	}
	m = &manager{fd: fd, clock: clock.Monotonic()}
	if m.id, err = m.ask("create", func(answer uint64) []byte { return ucmCreateCommand(answer) }); err == nil {
		err = m.write("bind "+ip.String(), ucmBindCommand(m.id, ip))
	}
	if err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return m, nil
}

// write gives the kernel a command.
func (m *manager) write(what string, command []byte) error {
	if _, err := unix.Write(m.fd, command); err != nil {
		return fmt.Errorf("rdma: connection manager: %s: %w", what, err)
	}
	return nil
}

// ask gives the kernel a command whose answer is a number.
func (m *manager) ask(what string, command func(answer uint64) []byte) (uint32, error) {
	var pin runtime.Pinner
	defer pin.Unpin()
	answer := new([ucmNumberBytes]byte)
	pin.Pin(answer)
	err := m.write(what, command(uint64(uintptr(unsafe.Pointer(answer)))))
	return binary.NativeEndian.Uint32(answer[:]), err
}

// join makes this host a member of the group of an IPv4 address. The number that it returns undoes it.
func (m *manager) join(group netip.Addr) (member uint32, at membership, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.number++
	what := "join " + group.String()
	member, err = m.ask(what, func(answer uint64) []byte { return ucmJoinCommand(answer, m.number, m.id, group) })
	if err != nil {
		return 0, membership{}, err
	}
	for deadline := m.clock.Now().Add(joinLimit); ; {
		at, err = m.event(deadline)
		if at.number == m.number || err != nil && at.number == 0 {
			break
		}
	}
	if err != nil {
		_, leaveErr := m.ask("leave", func(answer uint64) []byte { return ucmLeaveCommand(answer, member) })
		return 0, membership{}, errors.Join(fmt.Errorf("rdma: %s: %w", what, err), leaveErr)
	}
	return member, at, nil
}

// event waits for the next event, which is of a join that came to an end.
func (m *manager) event(deadline clock.Time) (membership, error) {
	var pin runtime.Pinner
	defer pin.Unpin()
	answer := new([ucmEventBytes]byte)
	pin.Pin(answer)
	for {
		err := m.write("event", ucmEventCommand(uint64(uintptr(unsafe.Pointer(answer)))))
		switch {
		case err == nil:
			return parseJoined(answer[:])
		case !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR):
			return membership{}, err
		}
		left := deadline.Sub(m.clock.Now())
		if left <= 0 {
			return membership{}, os.ErrDeadlineExceeded
		}
		poll := []unix.PollFd{{Fd: int32(m.fd), Events: unix.POLLIN}}
		if _, err := unix.Poll(poll, int(left.Milliseconds())+1); err != nil && !errors.Is(err, unix.EINTR) {
			return membership{}, err
		}
	}
}

// leave undoes join.
func (m *manager) leave(member uint32) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, err := m.ask("leave", func(answer uint64) []byte { return ucmLeaveCommand(answer, member) })
	return err
}

// close leaves all groups.
func (m *manager) close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, err := m.ask("destroy", func(answer uint64) []byte { return ucmDestroyCommand(answer, m.id) })
	err = errors.Join(err, unix.Close(m.fd))
	m.fd = -1 // whoever comes late fails
	return err
}

// managed is a channel that was joined through the manager.
type managed struct {
	member uint32
	at     membership
}

// ipOf returns an interface's IPv4 address: the one given, if it is one.
func ipOf(ifName string, given netip.Addr) (netip.Addr, error) {
	if given.IsValid() && given.Unmap().Is4() {
		return given.Unmap(), nil
	}
	ifi, err := net.InterfaceByName(ifName)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("rdma: interface %q: %w", ifName, err)
	}
	list, err := ifi.Addrs()
	if err != nil {
		return netip.Addr{}, fmt.Errorf("rdma: addresses of %q: %w", ifName, err)
	}
	for _, a := range list {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil {
			return netip.AddrFrom4([4]byte(n.IP.To4())), nil
		}
	}
	return netip.Addr{}, fmt.Errorf("rdma: interface %q has no IPv4 address, which joining groups needs", ifName)
}

// joinManaged joins a channel through the manager.
func (g *groups) joinManaged(ch dataplane.Channel) error {
	member, at, err := g.manager.join(ch.IPv4())
	if err != nil {
		return err
	}
	g.managed[ch] = managed{member: member, at: at}
	return nil
}

// leaveManaged undoes joinManaged.
func (g *groups) leaveManaged(ch dataplane.Channel) error {
	member := g.managed[ch].member
	delete(g.managed, ch)
	return g.manager.leave(member)
}
