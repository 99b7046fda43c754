//go:build cgo && rdma

package rdma

// #include "verbs.h"
import "C"

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/khamsin-io/khamsin/dataplane"
)

// groups holds the sockets that join multicast groups for the queue pair. Nothing is ever read from them: they make
// kernel and network deliver the groups to the interface, which attaching a queue pair does not.
type groups struct {
	ifIndex int
	members []int // how many groups each socket has joined
	sockets []int
	each    int // groups that one socket can join
	room    int // groups in all, with a manager
	joined  map[dataplane.Channel]int
	manager *manager // joins in the place of sockets; or nil
	managed map[dataplane.Channel]managed
	guard   int // held locked while a queue pair is attached or detached
}

// open opens the sockets: all now, so that they belong to the network namespace of Open's caller.
func (g *groups) open(cfg Config) error {
	ifi, err := net.InterfaceByName(cfg.Interface)
	if err != nil {
		return fmt.Errorf("rdma: interface %q: %w", cfg.Interface, err)
	}
	g.ifIndex, g.each, g.joined = ifi.Index, memberships(), make(map[dataplane.Channel]int)
	g.managed = make(map[dataplane.Channel]managed)
	path := filepath.Join(sysfs, cfg.Device)
	if g.guard, err = unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
		return fmt.Errorf("rdma: open %s: %w", path, err)
	}
	if cfg.Join == JoinManager {
		ip, err := ipOf(cfg.Interface, cfg.LocalIP)
		if err != nil {
			return err
		}
		g.room = cfg.Channels
		g.manager, err = openManager(ip)
		return err
	}
	for room := 0; room < cfg.Channels; room += g.each {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("rdma: socket: %w", err)
		}
		g.sockets, g.members = append(g.sockets, fd), append(g.members, 0)
	}
	return nil
}

func (g *groups) close() error {
	var errs []error
	for _, fd := range g.sockets {
		errs = append(errs, unix.Close(fd))
	}
	if g.guard > 0 {
		errs = append(errs, unix.Close(g.guard))
	}
	if g.manager != nil {
		errs = append(errs, g.manager.close())
	}
	g.sockets, g.guard, g.manager = nil, 0, nil
	return errors.Join(errs...)
}

// memberships returns how many groups one socket can join.
func memberships() int {
	const usual = 20
	text, err := os.ReadFile("/proc/sys/net/ipv4/igmp_max_memberships")
	if err != nil {
		return usual
	}
	if n, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil && n > 0 {
		return n
	}
	return usual
}

func (g *groups) membership(ch dataplane.Channel) *unix.IPMreqn {
	return &unix.IPMreqn{Multiaddr: ch.IPv4().As4(), Ifindex: int32(g.ifIndex)}
}

// join makes the interface receive a channel.
func (g *groups) join(ch dataplane.Channel) error {
	if g.manager != nil {
		if len(g.joined) >= g.room {
			return fmt.Errorf("rdma: channel %d: %d channels are all that Config.Channels allows: %w", ch, g.room,
				unix.ENOBUFS)
		}
		if err := g.joinManaged(ch); err != nil {
			return err
		}
		g.joined[ch] = 0
		return nil
	}
	for i, fd := range g.sockets {
		if g.members[i] >= g.each {
			continue
		}
		if err := unix.SetsockoptIPMreqn(fd, unix.IPPROTO_IP, unix.IP_ADD_MEMBERSHIP, g.membership(ch)); err != nil {
			return fmt.Errorf("rdma: join %v: %w", ch.IPv4(), err)
		}
		g.members[i]++
		g.joined[ch] = i
		return nil
	}
	return fmt.Errorf("rdma: channel %d: %d channels on %d sockets are all that the system allows: %w", ch,
		len(g.joined), len(g.sockets), unix.ENOBUFS)
}

// leave undoes join.
func (g *groups) leave(ch dataplane.Channel) error {
	i := g.joined[ch]
	delete(g.joined, ch)
	if g.manager != nil {
		return g.leaveManaged(ch)
	}
	g.members[i]--
	err := unix.SetsockoptIPMreqn(g.sockets[i], unix.IPPROTO_IP, unix.IP_DROP_MEMBERSHIP, g.membership(ch))
	if err != nil {
		return fmt.Errorf("rdma: leave %v: %w", ch.IPv4(), err)
	}
	return nil
}

// checkChannel tells whether a channel can be joined or left. The caller holds control.
func (t *Transport) checkChannel(ch dataplane.Channel) error {
	switch {
	case t.closed.Load():
		return dataplane.ErrClosed
	case !t.caps.Multicast:
		return dataplane.ErrNoMulticast
	case ch < dataplane.ChannelMin || ch > dataplane.ChannelMax:
		return dataplane.ErrBadChannel
	}
	return nil
}

// Subscribe joins the channel's group and attaches the queue pair to it.
func (t *Transport) Subscribe(ch dataplane.Channel) error {
	t.control.Lock()
	defer t.control.Unlock()
	if err := t.checkChannel(ch); err != nil {
		return err
	}
	if _, ok := t.groups.joined[ch]; ok {
		return nil
	}
	if err := t.groups.join(ch); err != nil {
		return err
	}
	if err := t.attach(ch, true); err != nil {
		return errors.Join(err, t.groups.leave(ch))
	}
	return nil
}

// Unsubscribe undoes Subscribe.
func (t *Transport) Unsubscribe(ch dataplane.Channel) error {
	t.control.Lock()
	defer t.control.Unlock()
	if err := t.checkChannel(ch); err != nil {
		return err
	}
	if _, ok := t.groups.joined[ch]; !ok {
		return nil
	}
	return errors.Join(t.attach(ch, false), t.groups.leave(ch))
}

// lock keeps all other processes of the host from attaching and detaching. In rdma_rxe of Linux 6.1 a queue pair that
// attaches to a group just as the device's last one leaves it is lost: it hears nothing and can never be destroyed.
func (g *groups) lock(how int) error {
	for {
		switch err := unix.Flock(g.guard, how); {
		case err == nil:
			return nil
		case !errors.Is(err, unix.EINTR):
			return fmt.Errorf("rdma: lock the groups of the device: %w", err)
		}
	}
}

// attach attaches the queue pair to the channel's group, or detaches it.
func (t *Transport) attach(ch dataplane.Channel, on bool) (err error) {
	var gid [16]C.uint8_t
	mgid, lid := ch.IPv4().As16(), C.uint16_t(0)
	if one, ok := t.groups.managed[ch]; ok {
		mgid, lid = one.at.mgid, C.uint16_t(one.at.mlid)
	}
	for i, b := range mgid {
		gid[i] = C.uint8_t(b)
	}
	if err := t.groups.lock(unix.LOCK_EX); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.groups.lock(unix.LOCK_UN)) }()
	if on {
		t.receiver.renumber.Store(true)
		return fault(fmt.Sprintf("attach %v", ch.IPv4()), C.kh_attach(t.pair, &gid[0], lid))
	}
	return fault(fmt.Sprintf("detach %v", ch.IPv4()), C.kh_detach(t.pair, &gid[0], lid))
}

// detachAll detaches the queue pair from all channels: it cannot be destroyed before.
func (t *Transport) detachAll() error {
	var errs []error
	for ch := range t.groups.joined {
		errs = append(errs, t.attach(ch, false))
	}
	clear(t.groups.joined)
	return errors.Join(errs...)
}
