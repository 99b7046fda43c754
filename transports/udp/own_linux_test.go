package udp

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"testing"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/khamsin-io/khamsin/dataplane"
)

// The filter drops what comes from one address and port, and nothing else.
func TestFilterOfOwn(t *testing.T) {
	for _, own := range []netip.AddrPort{
		netip.MustParseAddrPort("10.1.2.3:7001"), netip.MustParseAddrPort("[fd00::12:3]:7001"),
	} {
		prog := dropOwn(own)
		for _, from := range []struct {
			ip   string
			port uint16
		}{
			{own.Addr().String(), own.Port()}, {own.Addr().String(), 7002}, {"10.1.2.4", 7001}, {"11.1.2.3", 7001},
			{"fd00::12:4", 7001}, {"fd01::12:3", 7001}, {"fd00::1:12:3", 7001},
		} {
			ip := netip.MustParseAddr(from.ip)
			if ip.Is6() != own.Addr().Is6() {
				continue
			}
			dropped := run(t, prog, ip, from.port) == 0
			if want := netip.AddrPortFrom(ip, from.port) == own; dropped != want {
				t.Errorf("filter of %v: a packet of %v:%d dropped %v", own, ip, from.port, dropped)
			}
		}
	}
}

// run runs a filter on a datagram as the kernel shows it: from the UDP header on, with the IP header aside.
func run(t *testing.T, prog []unix.SockFilter, ip netip.Addr, port uint16) int {
	header := make([]byte, 40)
	at := 12
	if ip.Is6() {
		at = 8
	}
	copy(header[at:], ip.AsSlice())
	udp := binary.BigEndian.AppendUint16(nil, port)
	var insns []bpf.Instruction
	for _, in := range prog {
		raw := bpf.RawInstruction{Op: in.Code, Jt: in.Jt, Jf: in.Jf, K: in.K}
		if raw.K >= netOffset && in.Code&7 == unix.BPF_LD {
			raw.K = raw.K - netOffset + uint32(len(udp)) // the interpreter knows no IP header: it lies behind
		}
		insns = append(insns, raw.Disassemble())
	}
	vm, err := bpf.NewVM(insns)
	if err != nil {
		t.Fatal(err)
	}
	n, err := vm.Run(append(udp, header...))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// What a process multicasts comes to the others of its host, and not back to it. The copies that the kernel drops are
// not taken for losses, also while some of them are real.
func TestOwnMulticastsAreShed(t *testing.T) {
	for _, c := range []Config{{}, {DisableGSO: true}, {DisableGRO: true}, {DisableBatch: true}} {
		c.GroupPort = freePort(t)
		a, b := openUntilEnd(t, c), openUntilEnd(t, Config{GroupPort: c.GroupPort})
		if a.Caps().LoopsBack {
			t.Fatal("own multicasts come back")
		}
		if err := errors.Join(a.Subscribe(5), b.Subscribe(5)); err != nil {
			t.Fatal(err)
		}
		const rounds, each = 20, 16
		for range rounds {
			for ch := range dataplane.Channel(2) { // a has not joined the second
				batch := burst(t, a, dataplane.Endpoint{}, each, 200)
				for i := range batch {
					batch[i].Channel = 5 + ch
				}
				sendAll(t, a, batch)
			}
			receiveNumbers(t, b, each)
			if lost := a.Stats().ReceiveDropped; lost != 0 {
				t.Fatalf("%d losses", lost)
			}
		}
		batch := burst(t, b, dataplane.Endpoint{}, 1, 20)
		batch[0].Channel = 5
		sendAll(t, b, batch)
		receiveNumbers(t, a, 1) // with it comes the kernel's report
		st := a.Stats()
		if st.ReceivedPackets != 1 || st.ReceiveDropped != 0 {
			t.Errorf("%+v: %d received and %d lost, want one and none", c, st.ReceivedPackets, st.ReceiveDropped)
		}
		if reported := a.receiver.dropped.Load(); reported == 0 || reported > rounds*each {
			t.Errorf("%+v: the kernel reports %d, of %d copies", c, reported, rounds*each)
		}
	}
}
