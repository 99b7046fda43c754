package rdma

import (
	"encoding/binary"

	"github.com/khamsin-io/khamsin/dataplane"
)

// A channel's group over InfiniBand is the one that the kernel's connection manager makes of its IPv4 address, so that
// other programs find it under that address too:
//
//	0    0xff, flags and scope (transient; link-local)
//	2    0x4001: the connection manager's signature for IPv4
//	4    P_Key of the partition
//	6    zeros
//	12   the lower 28 bits of the address
//
// Over RoCE v2 it is the IPv4-mapped address itself.
const (
	mgidFlags     = 0x12
	mgidSignature = 0x4001
	mgidLow       = 239 & 0x0f // of a channel's address, in byte 12
)

// mgidOf returns the group of a channel over InfiniBand.
func mgidOf(ch dataplane.Channel, pkey uint16) (g [16]byte) {
	g[0], g[1] = 0xff, mgidFlags
	binary.BigEndian.PutUint16(g[2:], mgidSignature)
	binary.BigEndian.PutUint16(g[4:], pkey)
	binary.BigEndian.PutUint32(g[12:], mgidLow<<24|uint32(ch))
	return g
}

// channelOfMGID returns the channel of a group over InfiniBand, in any partition; zero when it is none.
func channelOfMGID(g [16]byte) dataplane.Channel {
	ch := dataplane.Channel(binary.BigEndian.Uint32(g[12:]) & uint32(dataplane.ChannelMax))
	g[1] = g[1]&0xf0 | mgidFlags&0x0f // the subnet manager may have given it a wider scope
	if ch == 0 || g != mgidOf(ch, binary.BigEndian.Uint16(g[4:])) {
		return 0
	}
	return ch
}
