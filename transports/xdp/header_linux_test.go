package xdp

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"testing"

	"pgregory.net/rapid"

	"github.com/khamsin-io/khamsin/dataplane"
)

// examples are origins of both families.
func examples() []origin {
	return []origin{
		{mac: mac{2, 0, 0, 0, 0, 1}, ip: mapped([]byte{10, 0, 0, 1}), port: 7001},
		{mac: mac{2, 0, 0, 0, 0, 1}, v6: true, ip: netip.MustParseAddr("fd00::12:1").As16(), port: 7001},
	}
}

// headers returns the bytes in front of a payload.
func (o *origin) headers() int { return (Config{IPv6: o.v6}).frameHeaders() }

// frameTo returns an Ethernet frame as the sender makes it.
func (o *origin) frameTo(to target, payload []byte) []byte {
	b := append(bytes.Repeat([]byte{0xee}, o.headers()), payload...)
	o.write(b, &to, b[o.headers():])
	return b
}

// somebody is a target of an origin's family.
func (o *origin) somebody() target {
	to := target{mac: mac{2, 0, 0, 0, 0, 9}, ip: mapped([]byte{10, 0, 0, 9}), port: 65535, ttl: 3}
	if o.v6 {
		to.ip = netip.MustParseAddr("fd00::99:9").As16()
	}
	return to
}

// What is written reads back, and other eyes read the same.
func TestHeaders(t *testing.T) {
	for _, o := range examples() {
		to := o.somebody()
		for _, size := range []int{0, 1, 2, 7, 8, 9, 64, 1471, 1472, 8972} {
			payload := bytes.Repeat([]byte{0xab}, size)
			f := o.frameTo(to, payload)
			o.check(t, f, &to)
			a, ok := parse(f)
			from := dataplane.EndpointOf(netip.AddrPortFrom(netip.AddrFrom16(o.ip), o.port))
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
}

// check looks at a frame as a host would that receives it.
func (o *origin) check(t *testing.T, f []byte, to *target) {
	t.Helper()
	if !bytes.Equal(f[:12], append(to.mac[:], o.mac[:]...)) {
		t.Fatalf("Ethernet header %x", f[:14])
	}
	ip := f[14:]
	if !o.v6 {
		if binary.BigEndian.Uint16(f[12:]) != 0x0800 || ip[8] != to.ttl || ip[6]&0x40 == 0 ||
			slowSum(ip[:20]) != 0xffff {
			t.Errorf("IP header %x", ip[:20])
		}
		return
	}
	if binary.BigEndian.Uint16(f[12:]) != 0x86dd || ip[0] != 0x60 || ip[7] != to.ttl {
		t.Errorf("IP header %x", ip[:40])
	}
	udp := ip[40:]
	pseudo := append(bytes.Clone(ip[8:40]), 0, 0, byte(len(udp)>>8), byte(len(udp)), 0, 0, 0, 17)
	if sum := slowSum(append(pseudo, udp...)); sum != 0xffff || udp[6] == 0 && udp[7] == 0 {
		t.Errorf("%d bytes of UDP have the sum %#x with the checksum %x, want 0xffff", len(udp), sum, udp[6:8])
	}
}

// slowSum is the sum of the Internet checksum, as RFC 1071 explains it.
func slowSum(b []byte) uint32 {
	var sum uint32
	for i := 0; i < len(b); i += 2 {
		word := uint32(b[i]) << 8
		if i+1 < len(b) {
			word |= uint32(b[i+1])
		}
		if sum += word; sum > 0xffff {
			sum -= 0xffff
		}
	}
	return sum
}

// The checksum is right for any payload, and never zero, which would say that there is none.
func TestChecksumIPv6(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		o := examples()[1]
		to := o.somebody()
		to.port = rapid.Uint16().Draw(r, "port")
		o.check(t, o.frameTo(to, rapid.SliceOfN(rapid.Byte(), 0, 100).Draw(r, "payload")), &to)
	})
	o := examples()[1]
	to := o.somebody()
	for i := range 1 << 16 { // one of these makes the sum come out as zero
		o.check(t, o.frameTo(to, []byte{byte(i >> 8), byte(i)}), &to)
	}
}

func TestMulticastAddresses(t *testing.T) {
	for ch, want := range map[dataplane.Channel][2]string{
		1:                    {"01:00:5e:00:00:01", "33:33:53:00:00:01"},
		0x818203:             {"01:00:5e:01:82:03", "33:33:53:81:82:03"},
		dataplane.ChannelMax: {"01:00:5e:7f:ff:ff", "33:33:53:ff:ff:ff"},
	} {
		for i, six := range []bool{false, true} {
			ip := (&Config{IPv6: six}).group(ch).As16()
			m := multicastMAC(ip)
			if got := net.HardwareAddr(m[:]).String(); got != want[i] || channelOf(ip) != ch {
				t.Errorf("channel %v: %s, want %s; back %v", ch, got, want[i], channelOf(ip))
			}
		}
	}
	for _, text := range []string{"224.0.0.1", "ff02::1", "10.0.0.1", "fd00::1", "::ef00:1"} {
		if ch := channelOf(netip.MustParseAddr(text).As16()); ch != 0 {
			t.Errorf("%s is channel %d", text, ch)
		}
	}
}

func TestEndpoints(t *testing.T) {
	for text, want := range map[string][2]bool{ // over IPv4, over IPv6
		"10.0.0.1:1": {true, false}, "10.0.0.1:0": {}, "0.0.0.0:1": {}, "239.0.0.1:1": {}, "255.255.255.255:1": {},
		"[2001:db8::1]:1": {false, true}, "[fe80::1]:9": {false, true}, "[::]:1": {}, "[ff15::1]:1": {},
		"[fd00::1]:0": {},
	} {
		e := dataplane.EndpointOf(netip.MustParseAddrPort(text))
		if got := [2]bool{isProcess(e, false), isProcess(e, true)}; got != want {
			t.Errorf("%s: %v, want %v", text, got, want)
		}
	}
	if isProcess(dataplane.Endpoint{IP: mapped([]byte{10, 0, 0, 1}), Port: 1 << 16}, false) {
		t.Error("a port above 65535")
	}
}

// FuzzParse: no frame makes parse panic or return what lies outside it.
func FuzzParse(f *testing.F) {
	for _, o := range examples() {
		good := o.frameTo(o.somebody(), []byte("payload"))
		f.Add(good)
		f.Add(good[:30])
		f.Add(append(append(bytes.Clone(good[:12]), 0x81, 0, 0, 7), good[12:]...))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if a, ok := parse(b); ok && (a.payload < etherHeader+headersIPv4 || a.size < 0 || a.payload+a.size > len(b)) {
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

const membershipsSix = `1    lo              ff020000000000000000000000000001     1 0000000C 0
12   veth0           ff1500000000000000004b4853000007     2 00000004 0
12   veth0           ff1500000000000000004b4853818203    11 00000004 0
12   veth0           ff0200000000000000000001ff000001     1 00000004 0
13   veth1           ff1500000000000000004b4853000008     1 00000004 0
`

func TestMembershipsIPv6(t *testing.T) {
	counts := map[dataplane.Channel]int{}
	if !scanMembershipsIPv6([]byte(membershipsSix), 12, counts) {
		t.Fatal("not understood")
	}
	if counts[7] != 2 || counts[0x818203] != 11 || len(counts) != 2 {
		t.Errorf("counts %v", counts)
	}
	for _, bad := range []string{
		"\n", "x lo ff020000000000000000000000000001 1\n", "1 lo ff02 1\n", "1 lo ff020000000000000000000000000001 x\n",
		"1 lo zz020000000000000000000000000001 1\n", "1 lo ff0200000000000000000000000000010 1\n", "1 lo\n",
	} {
		if scanMembershipsIPv6([]byte(bad), 1, counts) {
			t.Errorf("%q passes", bad)
		}
	}
}

func FuzzMemberships(f *testing.F) {
	f.Add([]byte(memberships))
	f.Add([]byte(membershipsSix))
	f.Fuzz(func(t *testing.T, text []byte) {
		counts := map[dataplane.Channel]int{}
		scanMemberships(text, 12, counts)
		scanMembershipsIPv6(text, 12, counts)
		for ch, n := range counts {
			if n < 0 || ch > dataplane.ChannelMax {
				t.Errorf("channel %v: %d", ch, n)
			}
		}
	})
}
