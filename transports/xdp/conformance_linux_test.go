package xdp

import (
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf/features"
	"golang.org/x/sys/unix"

	"github.com/khamsin-io/khamsin/bpf"
	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/frame"
	"github.com/khamsin-io/khamsin/dataplane/transporttest"
	"github.com/khamsin-io/khamsin/internal/netns"
)

const (
	prefix    = "kxdp-tr"
	groupPort = 7400
)

// requireXDP skips the test where there is no XDP.
func requireXDP(tb testing.TB) {
	tb.Helper()
	netns.Require(tb, "xdp", bpf.ProbeDemux())
}

// factory makes worlds whose transports lie on the hosts in turn. Strangers are on the last one.
func factory(hosts []*netns.Host, cfg Config) transporttest.Factory {
	return func(tb testing.TB, without string) transporttest.World {
		cfg := cfg
		cfg.Interface = netns.Interface
		cfg.IPv6 = hosts[0].IPv6.IsValid()
		if without != "multicast" {
			cfg.GroupPort = groupPort
		}
		opened := 0
		return transporttest.World{
			Open: func(tb testing.TB, o transporttest.Options) dataplane.Transport {
				tb.Helper()
				cfg, at := cfg, hosts[opened%len(hosts)]
				opened++
				cfg.Arena.TxChunks = o.Tx
				switch {
				case o.Rx > 0:
					cfg.Arena.RxRuns = o.Rx + socketFrames
				case o.Buffer > 0:
					cfg.Arena.RxRuns = o.Buffer/frame.DefaultChunkSize + socketFrames
				}
				return open(tb, at, cfg)
			},
			Inject: func(tb testing.TB, to dataplane.Endpoint, ch dataplane.Channel, payload []byte) {
				tb.Helper()
				dst := to.AddrPort()
				if ch != 0 {
					dst = netip.AddrPortFrom(cfg.group(ch), cfg.GroupPort)
				}
				if err := inject(hosts[len(hosts)-1], dst, payload); err != nil {
					tb.Fatal(err)
				}
			},
		}
	}
}

// open opens a transport on a host.
func open(tb testing.TB, h *netns.Host, cfg Config) *Transport {
	tb.Helper()
	tr, err := tryOpen(h, cfg)
	if err != nil {
		tb.Fatal(err)
	}
	return tr
}

func tryOpen(h *netns.Host, cfg Config) (tr *Transport, err error) {
	cfg.Interface = netns.Interface
	h.Do(func() { tr, err = Open(cfg) })
	return tr, err
}

// inject sends a datagram from a socket on a host.
func inject(h *netns.Host, to netip.AddrPort, payload []byte) (err error) {
	h.Do(func() {
		if to.Addr().Is6() {
			err = inject6(h.IPv6, to, payload)
			return
		}
		var fd int
		if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return
		}
		defer unix.Close(fd)
		err = errors.Join(
			unix.SetsockoptIPMreqn(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_IF, &unix.IPMreqn{Address: h.IP.As4()}),
			unix.Bind(fd, &unix.SockaddrInet4{Addr: h.IP.As4()}),
			unix.Sendto(fd, payload, 0, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}),
		)
	})
	return err
}

// inject6 is inject over IPv6, on the calling thread's host.
func inject6(from netip.Addr, to netip.AddrPort, payload []byte) error {
	ifi, err := net.InterfaceByName(netns.Interface)
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return errors.Join(
		unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_IF, ifi.Index),
		unix.Bind(fd, &unix.SockaddrInet6{Addr: from.As16()}),
		unix.Sendto(fd, payload, 0, &unix.SockaddrInet6{Addr: to.Addr().As16(), Port: int(to.Port())}),
	)
}

// requireSegments skips the test on kernels that are too old for packets in several chunks.
func requireSegments(tb testing.TB) {
	tb.Helper()
	err, old := probeSegments(), oldForSegments(tb)
	if old != errors.Is(err, &bpf.MissingError{Need: bpf.NeedKernel}) {
		tb.Fatalf("the kernel is too old: %v, and the probe says %v", old, err)
	}
	if old {
		tb.Skip(err)
	}
}

// oldForSegments tells whether the kernel is older than Linux 6.6.
func oldForSegments(tb testing.TB) bool {
	tb.Helper()
	version, err := features.LinuxVersionCode()
	if err != nil {
		tb.Fatal(err)
	}
	return version < 6<<16|6<<8
}

// The suite between four hosts on a bridge.
func TestConformance(t *testing.T) {
	requireXDP(t)
	for _, tc := range []struct {
		name string
		mtu  int
		cfg  Config
	}{
		{"generic", 1500, Config{Mode: bpf.ModeGeneric}},
		{"native", 1500, Config{}},
		{"exclusive", 1500, Config{Exclusive: true}},
		{"all options", 1500, Config{GroupFilter: true, Verify: true, BusyPoll: 20 * time.Microsecond}},
		{"jumbo", 9000, Config{MTU: 8972}},
		{"ipv6", 1500, Config{}},
		{"ipv6 generic", 1500, Config{Mode: bpf.ModeGeneric, GroupFilter: true}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if testing.Short() && tc.name != "native" {
				t.Skip("short: one way to use the transport is enough")
			}
			if tc.name == "jumbo" {
				requireSegments(t)
			}
			hosts := netns.Bridged(t, prefix, 4, netns.Options{MTU: tc.mtu, IPv6: strings.HasPrefix(tc.name, "ipv6")})
			var offloads []string
			if tc.name == "native" {
				offloads = []string{"multicast"}
			}
			transporttest.Run(t, factory(hosts, tc.cfg), offloads...)
		})
	}
}
