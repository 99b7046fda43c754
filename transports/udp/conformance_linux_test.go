package udp

import (
	"errors"
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/frame"
	"github.com/khamsin-io/khamsin/dataplane/transporttest"
	"github.com/khamsin-io/khamsin/dataplane/tree"
)

// where is an interface that a world's transports use, and the goroutine that reaches it.
type where struct {
	ifName string
	also   []string
	ip     netip.Addr
	do     func(func()) // runs a function where the interface is
}

// loopback is the interface that every process has.
var loopback = where{ifName: "lo", ip: netip.AddrFrom4([4]byte{127, 0, 0, 1}), do: func(fn func()) { fn() }}

// factory makes worlds whose transports lie at the places, in turn. Strangers are at the last one.
func factory(places ...where) transporttest.Factory {
	return func(tb testing.TB, without string) transporttest.World {
		cfg := Config{
			DisableGSO:   without == "gso" || without == "all",
			DisableGRO:   without == "gro" || without == "all",
			DisableBatch: without == "batch" || without == "all",
		}
		if without != "multicast" {
			cfg.GroupPort = freePort(tb)
		}
		opened := 0
		return transporttest.World{
			Open: func(tb testing.TB, o transporttest.Options) dataplane.Transport {
				tb.Helper()
				cfg, at := cfg, places[opened%len(places)]
				opened++
				cfg.Interface, cfg.LocalIP, cfg.Also = at.ifName, at.ip, at.also
				cfg.RecvBuffer = o.Buffer
				cfg.Arena = frame.Config{TxChunks: o.Tx, RxRuns: o.Rx}
				var tr *Transport
				var err error
				if at.do(func() { tr, err = Open(cfg) }); err != nil {
					tb.Fatal(err)
				}
				return tr
			},
			Inject: func(tb testing.TB, to dataplane.Endpoint, ch dataplane.Channel, payload []byte) {
				tb.Helper()
				dst := to.AddrPort()
				if ch != 0 {
					dst = netip.AddrPortFrom(ch.IPv4(), cfg.GroupPort)
					if dst6 := ch.IPv6(); places[0].ip.Is6() {
						dst = netip.AddrPortFrom(dst6, cfg.GroupPort)
					}
				}
				at := places[len(places)-1]
				var err error
				if at.do(func() { err = at.inject(dst, payload) }); err != nil {
					tb.Fatal(err)
				}
			},
		}
	}
}

// offloads are what the suite is rerun without.
var offloads = []string{"gso", "gro", "batch", "multicast", "all"}

// The suite on the loopback; without-multicast is the unicast-only mode.
//
// rows: TRN-01, IPM-15, NET-13
func TestConformance(t *testing.T) { transporttest.Run(t, factory(loopback), offloads...) }

// The suite over a tree of unicast datagrams.
//
// rows: TRN-01, TRN-02
func TestTreeConformance(t *testing.T) {
	transporttest.Run(t, transporttest.Rostered(func(tb testing.TB, o transporttest.Options) transporttest.Rostering {
		tb.Helper()
		tr, err := tree.New(open(tb, Config{
			RecvBuffer: o.Buffer, Arena: frame.Config{TxChunks: o.Tx, RxRuns: o.Rx},
		}), tree.Config{})
		if err != nil {
			tb.Fatal(err)
		}
		return tr
	}))
}

func open(tb testing.TB, cfg Config) *Transport {
	tb.Helper()
	tr, err := Open(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	return tr
}

// openUntilEnd opens a transport that is closed, with its arena whole, when the test ends.
func openUntilEnd(tb testing.TB, cfg Config) *Transport {
	tb.Helper()
	tr := open(tb, cfg)
	tb.Cleanup(func() {
		if err := tr.Close(); err != nil {
			tb.Error(err)
		}
	})
	return tr
}

// freePort returns a UDP port that nobody on the loopback uses.
func freePort(tb testing.TB) uint16 {
	tb.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		tb.Fatal(err)
	}
	defer c.Close()
	return uint16(c.LocalAddr().(*net.UDPAddr).Port)
}

// inject sends a datagram from a socket that is no transport's.
func (w where) inject(to netip.AddrPort, payload []byte) (err error) {
	if w.ip.Is6() {
		return w.inject6(to, payload)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	ifi, err := net.InterfaceByName(w.ifName)
	if err != nil {
		return err
	}
	return errors.Join(
		unix.SetsockoptIPMreqn(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_IF, &unix.IPMreqn{Ifindex: int32(ifi.Index)}),
		unix.Bind(fd, &unix.SockaddrInet4{Addr: w.ip.As4()}),
		unix.Sendto(fd, payload, 0, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}),
	)
}
