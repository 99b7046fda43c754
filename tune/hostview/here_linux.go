package hostview

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Here returns this computer.
func Here() (*Host, error) { return At("/", kernel{}), nil }

// Under returns this computer's kernel with files below another root, such as a bind mount of its /etc.
func Under(root string) (*Host, error) { return At(root, kernel{}), nil }

// kernel is the one that runs this process.
type kernel struct{}

// Link asks by netlink.
func (kernel) Link(name string) (Link, error) {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return Link{}, fmt.Errorf("interface %q: %w", name, err)
	}
	a := l.Attrs()
	return Link{
		Index: a.Index, MTU: a.MTU, Loopback: a.Flags&net.FlagLoopback != 0, Multicast: a.Flags&net.FlagMulticast != 0,
		Up: a.Flags&net.FlagUp != 0, Kind: l.Type(), TxQueues: a.NumTxQueues, RxQueues: a.NumRxQueues,
	}, nil
}

// Buffers asks a socket that sends nothing.
func (kernel) Buffers(receive, send int) (g Granted, err error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return g, fmt.Errorf("socket: %w", err)
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	if g.Receive, err = grant(fd, unix.SO_RCVBUF, unix.SO_RCVBUF, receive); err != nil {
		return g, err
	}
	if g.Send, err = grant(fd, unix.SO_SNDBUF, unix.SO_SNDBUF, send); err != nil {
		return g, err
	}
	var forced error
	if g.ForcedReceive, forced = grant(fd, unix.SO_RCVBUFFORCE, unix.SO_RCVBUF, receive); forced != nil {
		g.ForcedReceive = 0
	}
	if g.ForcedSend, forced = grant(fd, unix.SO_SNDBUFFORCE, unix.SO_SNDBUF, send); forced != nil {
		g.ForcedSend = 0
	}
	return g, nil
}

// grant asks for a buffer by one option and reads by another what was granted.
func grant(fd, ask, read, bytes int) (int, error) {
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, ask, bytes); err != nil {
		return 0, fmt.Errorf("ask for a socket buffer of %d bytes: %w", bytes, err)
	}
	got, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, read)
	if err != nil {
		return 0, fmt.Errorf("read a socket buffer's size: %w", err)
	}
	return got / 2, nil
}

// PathMTU asks a socket that is connected and sends nothing.
func (kernel) PathMTU(peer netip.Addr) (mtu int, err error) {
	if !peer.Unmap().Is4() {
		return 0, fmt.Errorf("path to %v: %w: IPv4 only", peer, errors.ErrUnsupported)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("socket: %w", err)
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	const discard = 9 // any port: nothing is sent
	if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: peer.Unmap().As4(), Port: discard}); err != nil {
		return 0, fmt.Errorf("path to %v: %w", peer, err)
	}
	mtu, err = unix.GetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU)
	if err != nil {
		return 0, fmt.Errorf("path to %v: %w", peer, err)
	}
	return mtu, nil
}

// driver asks an interface's driver.
func driver[T any](name, what string, ask func(e *ethtool.Ethtool) (T, error)) (T, error) {
	var none T
	e, err := ethtool.NewEthtool()
	if err != nil {
		return none, fmt.Errorf("ethtool: %w", err)
	}
	defer e.Close()
	got, err := ask(e)
	if err != nil {
		return none, fmt.Errorf("%s of %q: %w", what, name, err)
	}
	return got, nil
}

// Rings asks the driver.
func (kernel) Rings(name string) (Rings, error) {
	r, err := driver(name, "rings", func(e *ethtool.Ethtool) (ethtool.Ring, error) { return e.GetRing(name) })
	return Rings{
		Rx: int(r.RxPending), RxMax: int(r.RxMaxPending), Tx: int(r.TxPending), TxMax: int(r.TxMaxPending),
	}, err
}

// Features asks the driver.
func (kernel) Features(name string) (map[string]bool, error) {
	return driver(name, "offloads", func(e *ethtool.Ethtool) (map[string]bool, error) { return e.Features(name) })
}

// Channels asks the driver.
func (kernel) Channels(name string) (Channels, error) {
	c, err := driver(name, "queues", func(e *ethtool.Ethtool) (ethtool.Channels, error) { return e.GetChannels(name) })
	return Channels{Count: int(c.CombinedCount + c.RxCount), Max: int(c.MaxCombined + c.MaxRx)}, err
}

// Coalesce asks the driver.
func (kernel) Coalesce(name string) (Coalesce, error) {
	c, err := driver(name, "coalescing", func(e *ethtool.Ethtool) (ethtool.Coalesce, error) {
		return e.GetCoalesce(name)
	})
	return Coalesce{RxMicros: int(c.RxCoalesceUsecs), AdaptiveRx: c.UseAdaptiveRxCoalesce != 0}, err
}

// What the kernel's "netdev" family of generic netlink says, from linux/netdev.h.
const (
	netdevGet         = 1
	netdevIndex       = 1
	netdevXDPFeatures = 3

	xdpBasic    = 1 << 0
	xdpRedirect = 1 << 1
	xdpZeroCopy = 1 << 3
)

// XDP asks by generic netlink, which kernels before 6.3 do not answer.
func (kernel) XDP(index int) (XDP, error) {
	family, err := netlink.GenlFamilyGet("netdev")
	if err != nil {
		return XDP{}, fmt.Errorf("XDP features: the kernel has no netdev family (before 6.3?): %w", err)
	}
	req := nl.NewNetlinkRequest(int(family.ID), 0)
	// The header is written here: this family refuses one whose reserved bytes are not zero, and the library's
	// nl.Genlmsg leaves them to chance.
	req.AddRawData([]byte{netdevGet, 1, 0, 0})
	req.AddRawData(nl.NewRtAttr(netdevIndex, nl.Uint32Attr(uint32(index))).Serialize())
	answers, err := req.Execute(unix.NETLINK_GENERIC, 0)
	if err != nil {
		return XDP{}, fmt.Errorf("XDP features: %w", err)
	}
	for _, a := range answers {
		if len(a) < nl.SizeofGenlmsg {
			continue
		}
		attrs, err := nl.ParseRouteAttr(a[nl.SizeofGenlmsg:])
		if err != nil {
			return XDP{}, fmt.Errorf("XDP features: %w", err)
		}
		for _, attr := range attrs {
			if attr.Attr.Type == netdevXDPFeatures && len(attr.Value) >= 8 {
				bits := binary.NativeEndian.Uint64(attr.Value)
				x := XDP{Basic: bits&xdpBasic != 0, Redirect: bits&xdpRedirect != 0}
				x.ZeroCopy = bits&xdpZeroCopy != 0
				return x, nil
			}
		}
	}
	return XDP{}, errors.New("XDP features: the kernel's answer does not name them")
}

// SetMTU changes an interface's MTU.
func (kernel) SetMTU(name string, mtu int) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("interface %q: %w", name, err)
	}
	if err := netlink.LinkSetMTU(l, mtu); err != nil {
		return fmt.Errorf("set the MTU of %q to %d: %w", name, mtu, err)
	}
	return nil
}

// SetRings changes the sizes of an interface's rings.
func (kernel) SetRings(name string, rx, tx int) error {
	_, err := driver(name, "rings", func(e *ethtool.Ethtool) (ethtool.Ring, error) {
		r, err := e.GetRing(name)
		if err != nil {
			return r, err
		}
		r.RxPending, r.TxPending = uint32(rx), uint32(tx)
		return e.SetRing(name, r)
	})
	return err
}

// MayConfigure asks for CAP_NET_ADMIN.
func (kernel) MayConfigure() bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return false
	}
	return data[0].Effective&(1<<unix.CAP_NET_ADMIN) != 0
}
