package rdma

import (
	"encoding/binary"
	"errors"
	"net/netip"
)

// Records of the exchange that connects a writer to a region, all big-endian.
//
//	key      magic | address and TCP port of the region's process | token | memory address | size | rkey
//	hello    magic | token | queue pair
//	welcome  magic | queue pair
//	pair     GID | number | first packet number
const (
	keyMagic     = 0x4b52574b
	helloMagic   = 0x4b525748
	welcomeMagic = 0x4b525757

	tokenBytes   = 16
	keyBytes     = 4 + 16 + 2 + tokenBytes + 8 + 8 + 4
	pairBytes    = 16 + 4 + 4
	helloBytes   = 4 + tokenBytes + pairBytes
	welcomeBytes = 4 + pairBytes
)

// errBadKey refuses what is no key of a region. errBadHello and errBadWelcome are for what is no word of the exchange.
var (
	errBadKey     = errors.New("rdma: this is no key of a region")                       // immutable: an error
	errBadHello   = errors.New("rdma: a caller does not speak our protocol")             // immutable: an error
	errBadWelcome = errors.New("rdma: the region's process does not speak our protocol") // immutable: an error
)

// token names a region. Who knows it may write.
type token [tokenBytes]byte

// key is where a region is, and the right to write to it.
type key struct {
	host  netip.AddrPort
	token token
	addr  uint64
	size  uint64
	rkey  uint32
}

func (k *key) marshal() []byte {
	b := make([]byte, 0, keyBytes)
	b = binary.BigEndian.AppendUint32(b, keyMagic)
	ip := k.host.Addr().As16()
	b = append(b, ip[:]...)
	b = binary.BigEndian.AppendUint16(b, k.host.Port())
	b = append(b, k.token[:]...)
	b = binary.BigEndian.AppendUint64(b, k.addr)
	b = binary.BigEndian.AppendUint64(b, k.size)
	return binary.BigEndian.AppendUint32(b, k.rkey)
}

func parseKey(b []byte) (k key, err error) {
	if len(b) != keyBytes || binary.BigEndian.Uint32(b) != keyMagic {
		return key{}, errBadKey
	}
	ip := netip.AddrFrom16([16]byte(b[4:20])).Unmap()
	k.host = netip.AddrPortFrom(ip, binary.BigEndian.Uint16(b[20:]))
	k.token = token(b[22:38])
	k.addr, k.size = binary.BigEndian.Uint64(b[38:]), binary.BigEndian.Uint64(b[46:])
	k.rkey = binary.BigEndian.Uint32(b[54:])
	if k.host.Port() == 0 || ip.IsUnspecified() || ip.IsMulticast() || k.size == 0 || k.size > regionMax ||
		k.addr+k.size < k.addr {
		return key{}, errBadKey
	}
	return k, nil
}

// pairInfo is what one side of a connection tells the other of its queue pair.
type pairInfo struct {
	gid    [16]byte
	number uint32
	psn    uint32
}

func (p *pairInfo) append(b []byte) []byte {
	b = append(b, p.gid[:]...)
	b = binary.BigEndian.AppendUint32(b, p.number)
	return binary.BigEndian.AppendUint32(b, p.psn)
}

// parsePair reads pairBytes bytes.
func parsePair(b []byte) (p pairInfo, ok bool) {
	p.gid = [16]byte(b)
	p.number, p.psn = binary.BigEndian.Uint32(b[16:]), binary.BigEndian.Uint32(b[20:])
	return p, p.number > 0 && p.number < qpNumberMax && p.psn <= psnMax && p.gid != [16]byte{}
}

// psnMax is the highest packet number.
const psnMax = 1<<24 - 1

// hello is a writer's request.
type hello struct {
	token token
	pair  pairInfo
}

func (h *hello) marshal() []byte {
	b := binary.BigEndian.AppendUint32(make([]byte, 0, helloBytes), helloMagic)
	return h.pair.append(append(b, h.token[:]...))
}

func parseHello(b []byte) (h hello, err error) {
	if len(b) != helloBytes || binary.BigEndian.Uint32(b) != helloMagic {
		return hello{}, errBadHello
	}
	var ok bool
	h.token = token(b[4:])
	if h.pair, ok = parsePair(b[4+tokenBytes:]); !ok {
		return hello{}, errBadHello
	}
	return h, nil
}

func marshalWelcome(p pairInfo) []byte {
	return p.append(binary.BigEndian.AppendUint32(make([]byte, 0, welcomeBytes), welcomeMagic))
}

func parseWelcome(b []byte) (p pairInfo, err error) {
	if len(b) != welcomeBytes || binary.BigEndian.Uint32(b) != welcomeMagic {
		return pairInfo{}, errBadWelcome
	}
	p, ok := parsePair(b[4:])
	if !ok {
		return pairInfo{}, errBadWelcome
	}
	return p, nil
}
