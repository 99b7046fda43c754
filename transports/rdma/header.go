package rdma

import (
	"net/netip"

	"github.com/khamsin-io/khamsin/dataplane"
)

// origin is what the header in front of a datagram says.
type origin struct {
	source  [16]byte
	channel dataplane.Channel
	ok      bool // false: nothing of ours
}

// readHeader reads the 40 bytes that the device puts in front of a datagram. Over RoCE v2 with IPv4 the second half is
// the IPv4 header and the first is undefined; else all of it is a global routing header, which is laid out like IPv6's,
// and channels are groups of InfiniBand.
func readHeader(h *[grhBytes]byte, ipv4 bool) origin {
	if !ipv4 {
		const version = 6
		if h[0]>>4 != version {
			return origin{}
		}
		o := origin{source: [16]byte(h[8:24]), ok: true}
		if h[24] == 0xff {
			o.channel = channelOfMGID([16]byte(h[24:40]))
			o.ok = o.channel != 0
		}
		return o
	}
	if h[20]>>4 != 4 {
		return origin{}
	}
	o := origin{source: netip.AddrFrom4([4]byte(h[32:36])).As16(), ok: true}
	switch to := h[36:40]; {
	case to[0] == 239:
		o.channel = dataplane.Channel(to[1])<<16 | dataplane.Channel(to[2])<<8 | dataplane.Channel(to[3])
		o.ok = o.channel != 0
	case to[0]>>4 == 0xe:
		o.ok = false
	}
	return o
}
