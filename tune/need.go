package tune

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/khamsin-io/khamsin/transports/udp"
	"github.com/khamsin-io/khamsin/vsync"
)

// Profile says what the host is to be good at.
type Profile string

// The profiles.
const (
	Latency    Profile = "latency"
	Throughput Profile = "throughput"
	Bulk       Profile = "bulk"
)

// Options says what a check is about. The zero Options are those of the library's defaults: throughput over UDP on the
// loopback interface.
type Options struct {
	Profile   Profile    // default Throughput
	Interface string     // default the configuration's first one
	Transport string     // "udp", the default, "xdp", "rdma" or "tcp"
	Peer      netip.Addr // whose path is looked at; none when invalid
	Config    vsync.Config
}

// Need is what the library needs of a host, in bytes unless a field says otherwise.
type Need struct {
	Packet   int // the longest packet: ISIS_MAXMSGLEN
	Receive  int // each socket's receive buffer
	Send     int // the sending socket's buffer
	Sockets  int // number of sockets of a process
	Channels int // number of multicast addresses
	Arena    int // memory of the frames
	Files    int // number of descriptors
}

const (
	bulkFactor   = 4 // of the buffers of other profiles
	arenaFrames  = 8192 + 16384
	frameBytes   = 2048
	filesMin     = 1024
	ipUDPHeaders = 28
)

// needOf returns what a process of a configuration needs on an interface of an MTU, zero when that is not known.
func needOf(o Options, mtu int) Need {
	packet := o.Config.MaxPacket
	if packet == 0 {
		packet = udp.DefaultMTUMax // as the transport chooses when nothing is set
		if mtu > ipUDPHeaders {
			packet = min(packet, mtu-ipUDPHeaders)
		}
	}
	n := Need{
		Packet: packet, Sockets: 1 + udp.DefaultChannels/20, Channels: udp.DefaultChannels,
		Arena: arenaFrames * max(frameBytes, packet), Files: filesMin,
	}
	n.Receive, n.Send = o.Config.Buffers()
	if o.Profile == Bulk {
		n.Receive = max(n.Receive, bulkFactor*udp.DefaultRecvBuffer)
		n.Send = max(n.Send, bulkFactor*udp.DefaultSendBuffer)
	}
	return n
}

// complete fills in what o leaves open and reports everything that is wrong with it.
func (o Options) complete() (Options, error) {
	if o.Config.SystemName == "" {
		o.Config = vsync.DefaultConfig()
	}
	if o.Profile == "" {
		o.Profile = Throughput
	}
	if o.Transport == "" {
		o.Transport = "udp"
	}
	if o.Interface == "" && len(o.Config.Interfaces) > 0 {
		o.Interface = o.Config.Interfaces[0]
	}
	var faults []error
	if !slices.Contains([]Profile{Latency, Throughput, Bulk}, o.Profile) {
		faults = append(faults, fmt.Errorf("profile %q: want latency, throughput or bulk", o.Profile))
	}
	if !slices.Contains([]string{"udp", "xdp", "rdma", "tcp"}, o.Transport) {
		faults = append(faults, fmt.Errorf("transport %q: want udp, xdp, rdma or tcp", o.Transport))
	}
	if !validInterface(o.Interface) {
		faults = append(faults, fmt.Errorf("interface %q: is no name of an interface", o.Interface))
	}
	return o, errors.Join(faults...)
}

// validInterface tells whether Linux could have an interface of that name, so that it can stand in a path.
func validInterface(name string) bool {
	const nameMax = 15
	return name != "" && len(name) <= nameMax && name != "." && name != ".." &&
		!strings.ContainsAny(name, "/: \t\n\x00")
}
