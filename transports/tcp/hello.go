package tcp

import (
	"encoding/binary"

	"github.com/khamsin-io/khamsin/dataplane"
)

// hello is what a dialler sends first:
//
//	0               8              24      26
//	| "khamsin\x01" | IP address   | port  |
//
// The address is that on which the dialler listens, IPv4 in its IPv6-mapped form; the port is big endian. Behind it,
// and in the other direction from the start, come packets:
//
//	0        4
//	| length | that many bytes
//
// The length is little endian, up to the MTU.
const (
	helloMagic = "khamsin\x01"
	helloBytes = len(helloMagic) + 16 + 2
	lenBytes   = 4
)

func appendHello(b []byte, local dataplane.Endpoint) []byte {
	b = append(b, helloMagic...)
	b = append(b, local.IP[:]...)
	return binary.BigEndian.AppendUint16(b, uint16(local.Port))
}

// parseHello reads a whole hello; false when it is none.
func parseHello(b []byte) (peer dataplane.Endpoint, ok bool) {
	if len(b) < helloBytes || string(b[:len(helloMagic)]) != helloMagic {
		return peer, false
	}
	copy(peer.IP[:], b[len(helloMagic):])
	peer.Port = uint32(binary.BigEndian.Uint16(b[helloBytes-2:]))
	return peer, peer.Port != 0
}
