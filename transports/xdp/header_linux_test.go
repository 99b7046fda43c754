package xdp

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"testing"

	"github.com/khamsin-io/khamsin/dataplane"
)

// immutable: an example
var example = origin{mac: mac{2, 0, 0, 0, 0, 1}, ip: [4]byte{10, 0, 0, 1}, port: 7001}

// frameTo returns an Ethernet frame as the sender makes it.
func frameTo(to target, payload []byte) []byte {
	b := make([]byte, frameHeaders, frameHeaders+len(payload))
	example.write(b, &to, len(payload))
	return append(b, payload...)
}

// What is written reads back, and other eyes read the same.
func TestHeaders(t *testing.T) {
	to := target{mac: mac{2, 0, 0, 0, 0, 9}, ip: [4]byte{10, 0, 0, 9}, port: 65535, ttl: 3}
	for _, size := range []int{0, 1, 64, 1472, 8972} {
		payload := bytes.Repeat([]byte{0xab}, size)
		f := frameTo(to, payload)
		if !bytes.Equal(f[:12], append(to.mac[:], example.mac[:]...)) || binary.BigEndian.Uint16(f[12:]) != 0x0800 {
			t.Fatalf("Ethernet header %x", f[:14])
		}
		var sum uint32
		for i := ipOffset; i < udpOffset; i += 2 {
			sum += uint32(binary.BigEndian.Uint16(f[i:]))
		}
		if sum = sum>>16 + sum&0xffff; sum != 0xffff {
			t.Errorf("the IP header's sum is %#x, want 0xffff", sum)
		}
		if f[ipOffset+8] != 3 || f[ipOffset+6]&0x40 == 0 {
			t.Errorf("TTL %d, flags %#x", f[ipOffset+8], f[ipOffset+6])
		}
		a, ok := parse(f)
		from := dataplane.EndpointOf(netip.AddrPortFrom(netip.AddrFrom4(example.ip), example.port))
		if !ok || a.from != from || a.to != to.ip || a.port != to.port || a.size != size ||
			!bytes.Equal(f[a.payload:a.payload+a.size], payload) {
			t.Errorf("size %d reads as %+v, %v", size, a, ok)
		}
		tagged := append(append(bytes.Clone(f[:12]), 0x81, 0, 0, 7), f[12:]...)
		if b, ok := parse(append(tagged, 0, 0, 0)); !ok || b.size != size || b.payload != a.payload+vlanTag {
			t.Errorf("tagged and padded: %+v, %v", b, ok)
		}
		for n := range f[:min(len(f), 80)] {
			if _, ok := parse(f[:n]); ok {
				t.Errorf("the first %d of %d bytes pass for a datagram", n, len(f))
			}
		}
	}
}

func TestMulticastAddresses(t *testing.T) {
	for ch, want := range map[dataplane.Channel]string{
		1: "01:00:5e:00:00:01", 0x818203: "01:00:5e:01:82:03", dataplane.ChannelMax: "01:00:5e:7f:ff:ff",
	} {
		ip := ch.IPv4().As4()
		m := multicastMAC(ip)
		if got := net.HardwareAddr(m[:]).String(); got != want || channelOf(ip) != ch {
			t.Errorf("channel %v: %s, want %s; back %v", ch, got, want, channelOf(ip))
		}
	}
	if channelOf([4]byte{224, 0, 0, 1}) != 0 {
		t.Error("224.0.0.1 is a channel")
	}
}

func TestEndpoints(t *testing.T) {
	for text, want := range map[string]bool{
		"10.0.0.1:1": true, "10.0.0.1:0": false, "0.0.0.0:1": false, "239.0.0.1:1": false, "255.255.255.255:1": false,
		"[2001:db8::1]:1": false,
	} {
		if _, _, ok := ipv4Of(dataplane.EndpointOf(netip.MustParseAddrPort(text))); ok != want {
			t.Errorf("%s: %v", text, ok)
		}
	}
	if _, _, ok := ipv4Of(dataplane.Endpoint{IP: [16]byte{10: 0xff, 11: 0xff, 12: 10, 15: 1}, Port: 1 << 16}); ok {
		t.Error("a port above 65535")
	}
}

// FuzzParse: no frame makes parse panic or return what lies outside it.
func FuzzParse(f *testing.F) {
	good := frameTo(target{ip: [4]byte{239, 1, 2, 3}, port: 7}, []byte("payload"))
	f.Add(good)
	f.Add(good[:30])
	f.Add(append(append(bytes.Clone(good[:12]), 0x81, 0, 0, 7), good[12:]...))
	f.Fuzz(func(t *testing.T, b []byte) {
		if a, ok := parse(b); ok && (a.payload < frameHeaders || a.size < 0 || a.payload+a.size > len(b)) {
			t.Errorf("%+v of %d bytes", a, len(b))
		}
	})
}

const memberships = `Idx	Device    : Count Querier	Group    Users Timer	Reporter
1	lo        :     1      V3
				010000E0     1 0:00000000		0
12	veth0     :     3      V3
				070000EF     2 0:00000000		0
				010203EF    11 0:00000000		0
				010000E0     1 0:00000000		0
`

func TestMemberships(t *testing.T) {
	counts := map[dataplane.Channel]int{}
	if !scanMemberships([]byte(memberships), 12, counts) {
		t.Fatal("not understood")
	}
	order := binary.NativeEndian.Uint32([]byte{1, 2, 3, 4}) == 0x04030201 // as on the machine that the text is from
	if order && (counts[7] != 2 || counts[0x030201] != 11 || len(counts) != 3) {
		t.Errorf("counts %v", counts)
	}
	for _, bad := range []string{
		"heading\n\n", "heading\nx\tlo\n", "heading\n1 lo\n\t\tXYZ 1\n", "heading\n1 lo\n\t\tEF 1x\n",
		"heading\n1 lo\n\t\t1234567890 1\n", "heading\n1 lo\n\t\tEF\n",
	} {
		if scanMemberships([]byte(bad), 1, counts) {
			t.Errorf("%q passes", bad)
		}
	}
}

func FuzzMemberships(f *testing.F) {
	f.Add([]byte(memberships))
	f.Fuzz(func(t *testing.T, text []byte) {
		counts := map[dataplane.Channel]int{}
		scanMemberships(text, 12, counts)
		for ch, n := range counts {
			if n < 0 || ch > dataplane.ChannelMax {
				t.Errorf("channel %v: %d", ch, n)
			}
		}
	})
}
