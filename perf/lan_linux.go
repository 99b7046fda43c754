package perf

import (
	"errors"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Names of the network of a run. They are seen inside its namespaces only.
const (
	lanBridge    = "kprfbr"
	lanInterface = "kprf0"
	lanPrefix    = 24
)

// lanAddress returns the address of member i.
func lanAddress(i int) net.IP { return net.IPv4(10, 201, 0, byte(1+i)) }

// lan is a bridge in a network namespace that has no name and belongs to the thread that made it. It is gone when that
// thread and the member processes are, however they ended: there is nothing to clean up.
type lan struct {
	bridge *netlink.Bridge
	mtu    int
}

// newLAN moves the calling thread, which must be locked and never be used for anything else, into a fresh network
// namespace, and makes a bridge there that passes multicast to everybody. An mtu of 0 is the
// system's default.
func newLAN(mtu int) (*lan, error) {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return nil, fmt.Errorf("network namespace: %w (it takes root; without --netns members meet on loopback)", err)
	}
	snooping := false
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = lanBridge, mtu
	l := &lan{mtu: mtu, bridge: &netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &snooping}}
	if err := netlink.LinkAdd(l.bridge); err != nil {
		return nil, fmt.Errorf("bridge: %w", err)
	}
	return l, netlink.LinkSetUp(l.bridge)
}

// plug joins member i, a process in a namespace of its own, to the bridge, and returns what it must do at its end.
func (l *lan) plug(i, pid int) (*netOrder, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = fmt.Sprintf("kprfp%d", i), l.mtu
	link := &netlink.Veth{LinkAttrs: attrs, PeerName: lanInterface, PeerNamespace: netlink.NsPid(pid),
		PeerMTU: uint32(l.mtu)}
	if err := netlink.LinkAdd(link); err != nil {
		return nil, fmt.Errorf("interface of member %d: %w", i, err)
	}
	port, err := netlink.LinkByName(attrs.Name)
	if err != nil {
		return nil, fmt.Errorf("interface of member %d: %w", i, err)
	}
	err = errors.Join(netlink.LinkSetMaster(port, l.bridge), netlink.LinkSetUp(port))
	return &netOrder{Address: lanAddress(i).String()}, err
}

// cut takes the cable of member i out.
func (l *lan) cut(i int) error {
	port, err := netlink.LinkByName(fmt.Sprintf("kprfp%d", i))
	if err == nil {
		err = netlink.LinkSetDown(port)
	}
	if err != nil {
		return fmt.Errorf("cut member %d: %w", i, err)
	}
	return nil
}

// netOrder is what a member does in its own namespace.
type netOrder struct {
	Address string
	Loss    float64 // share of packets that are dropped on arrival
}

func (o *netOrder) setUp() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("lo: %w", err)
	}
	link, err := netlink.LinkByName(lanInterface)
	if err != nil {
		return fmt.Errorf("%s: %w", lanInterface, err)
	}
	address, err := netlink.ParseAddr(fmt.Sprintf("%s/%d", o.Address, lanPrefix))
	if err != nil {
		return err
	}
	err = errors.Join(netlink.LinkSetUp(lo), netlink.AddrAdd(link, address), netlink.LinkSetUp(link))
	if err != nil || o.Loss == 0 {
		return err
	}
	// Packets are lost one by one, so super-packets must not travel whole.
	if err := netlink.LinkSetGSOMaxSegs(link, 1); err != nil {
		return fmt.Errorf("single packets on %s: %w", lanInterface, err)
	}
	return o.lose()
}

// lossParts is the fineness of Loss.
const lossParts = 100000

// lose makes the system drop packets of ours on arrival, each with the same probability.
func (o *netOrder) lose() error {
	rules := fmt.Sprintf(`table inet kprf {
	chain arrival {
		type filter hook prerouting priority -300;
		iifname %q meta l4proto { udp, tcp } numgen random mod %d < %d counter drop
	}
}
`, lanInterface, lossParts, int(o.Loss*lossParts+0.5))
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(rules)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("nft: %w: %s", err, out)
	}
	return nil
}

// kidAttributes makes a child end with the thread that started it, spares it the terminal's Ctrl-C, and gives it a
// network namespace of its own when it is to have one.
func kidAttributes(private bool) *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if private {
		a.Cloneflags = syscall.CLONE_NEWNET
	}
	return a
}
