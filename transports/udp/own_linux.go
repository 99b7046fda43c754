package udp

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/khamsin-io/khamsin/dataplane"
)

// Where a socket filter finds things: offsets of the datagram start at its UDP header, those from netOffset on at its
// IP header.
const (
	netOffset  = 0xfff00000 // SKF_NET_OFF
	sourceIPv4 = netOffset + 12
	sourceIPv6 = netOffset + 8
	sourcePort = 0
	acceptAll  = 0xffffffff
)

// dropOwn returns a filter that drops what comes from one address and port: the copies of this process's multicasts
// that the kernel hands back, because other processes of the host may want theirs. Without it a sender reads, checks
// and throws away all that it sends.
func dropOwn(from netip.AddrPort) []unix.SockFilter {
	load := func(size uint16, at uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_ABS | size, K: at}
	}
	var prog []unix.SockFilter
	words, at := from.Addr().AsSlice(), uint32(sourceIPv4)
	if from.Addr().Is6() {
		at = sourceIPv6
	}
	equal := func(value uint32) { // the jump over the rest is put in below
		prog = append(prog, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: value})
	}
	for ; len(words) > 0; words, at = words[4:], at+4 {
		prog = append(prog, load(unix.BPF_W, at))
		equal(binary.BigEndian.Uint32(words))
	}
	prog = append(prog, load(unix.BPF_H, sourcePort))
	equal(uint32(from.Port()))
	prog = append(prog,
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 0},
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: acceptAll})
	for i := range prog {
		if prog[i].Code&0x07 == unix.BPF_JMP {
			prog[i].Jf = uint8(len(prog) - 1 - (i + 1))
		}
	}
	return prog
}

// attachOwn puts the filter on a socket.
func attachOwn(fd int, prog []unix.SockFilter) error {
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
		&unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]})
}

// shedOwn makes the multicast sockets drop this process's own packets, unless they have another filter. Where that does
// not work they come, and the protocols ignore them.
func (t *Transport) shedOwn() {
	if len(t.groups) == 0 || t.cfg.Filter != nil || t.cfg.Beside != nil {
		return
	}
	prog := dropOwn(t.local.AddrPort())
	for _, s := range t.groups {
		if err := attachOwn(s.fd, prog); err != nil {
			t.noteOff("SO_ATTACH_FILTER", fmt.Errorf("own multicasts come back: %w", err))
			return // a socket that drops some all the same does no harm
		}
	}
	t.caps.LoopsBack = false
	t.sender.joined, t.sender.gro = &t.listens, t.gro
}

// listen publishes which channels are joined. The caller holds control, or is alone.
func (t *Transport) listen() {
	set := make(map[dataplane.Channel]struct{}, len(t.joined))
	for ch := range t.joined {
		set[ch] = struct{}{}
	}
	t.listens.Store(&set)
}

// expectOwn notes which copies of the staged messages the filter will drop; they are among what the kernel reports as
// lost. That is done before the messages are sent, so that what is known to be dropped is never behind the report.
func (s *sender) expectOwn() {
	if s.joined == nil {
		return
	}
	joined := *s.joined.Load()
	for i := range s.staged {
		m := &s.spans[i]
		m.own = 0
		if m.channel == 0 {
			continue
		}
		if _, has := joined[m.channel]; has {
			m.own = m.packets
			if s.gro {
				m.own = 1 // the copy is dropped whole
			}
			s.own.Add(int64(m.own))
		}
	}
}

// lost returns how many datagrams were lost for want of room: what the kernel reports, less what filters dropped.
func (t *Transport) lost(filtered uint64) uint64 {
	reported := t.receiver.dropped.Load()
	lost := reported - min(reported, filtered+uint64(max(0, t.sender.own.Load())))
	for {
		most := t.lostMost.Load()
		if lost <= most {
			return most // a report lags behind what is known to be dropped
		}
		if t.lostMost.CompareAndSwap(most, lost) {
			return lost
		}
	}
}
