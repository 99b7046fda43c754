package bpf

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/khamsin-io/khamsin/dataplane/wire"
	"github.com/khamsin-io/khamsin/internal/netns"
)

// bench is the demultiplexer on the kernel's test bench, where no packet leaves.
type bench struct {
	objs demuxObjects
	ref  reference
}

// The addresses of the bench.
//
// immutable: names for tests
var (
	unicast   = netip.MustParseAddrPort("10.0.0.1:7000")
	verified  = netip.MustParseAddrPort("10.0.0.3:7000")
	short     = netip.MustParseAddrPort("10.0.0.4:7000")
	unicast6  = netip.MustParseAddrPort("[fd00::1]:7000")
	byGroup   = netip.MustParseAddrPort("239.1.2.3:7001") // groups 5 (one member) and 6 (two)
	byGroup6  = netip.MustParseAddrPort("[ff15::7]:7001") // group 5
	shared    = netip.MustParseAddrPort("239.1.2.4:7001") // two members, not by group
	halfOpen  = netip.MustParseAddrPort("239.1.2.5:7001") // by group, but one member is not exclusive
	unjoined  = netip.MustParseAddrPort("239.9.9.9:7001")
	nobody    = netip.MustParseAddrPort("239.1.2.3:7002")
	anyMcast  = netip.AddrPortFrom(netip.Addr{}, 7001)
	elsewhere = netip.MustParseAddrPort("10.0.0.2:7000")
)

const benchVLAN = 100

func requireXDP(tb testing.TB) {
	tb.Helper()
	netns.Require(tb, "xdp", ProbeDemux())
}

func newBench(tb testing.TB) *bench {
	tb.Helper()
	requireXDP(tb)
	b := &bench{ref: reference{rules: map[demuxRuleKey]demuxRule{}, slots: map[uint32]demuxSlot{
		1: {Limit: 2000}, 2: {Limit: 2000}, 3: {Limit: 2000, Flags: slotVerify}, 4: {Limit: 100},
	}}}
	if err := loadDemuxObjects(&b.objs, nil); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { b.objs.Close() })
	t := table{&b.objs.demuxMaps}
	for slot, s := range b.ref.slots {
		must(tb, b.objs.Slots.Put(slot, &s))
	}
	grouped := func(slot uint32) share { return share{slot: slot, grouped: true, exclusive: true} }
	alone := func(slot uint32) share { return share{slot: slot, exclusive: true} }
	for _, r := range []struct {
		to    netip.AddrPort
		vlan  uint16
		group uint32
		s     share
	}{
		{unicast, 0, 0, alone(1)}, {unicast6, 0, 0, alone(1)}, {verified, 0, 0, alone(3)}, {short, 0, 0, alone(4)},
		{byGroup, 0, 0, grouped(1)}, {byGroup, 0, 0, grouped(2)}, {byGroup, 0, 5, alone(2)},
		{byGroup, 0, 6, alone(1)}, {byGroup, 0, 6, alone(2)},
		{byGroup6, 0, 0, grouped(2)}, {byGroup6, 0, 5, alone(2)},
		{shared, 0, 0, alone(1)}, {shared, 0, 0, alone(2)},
		{halfOpen, 0, 0, grouped(1)}, {halfOpen, 0, 0, share{slot: 2, grouped: true}}, {halfOpen, 0, 5, alone(1)},
		{anyMcast, 0, 0, alone(1)}, {unicast, benchVLAN, 0, alone(2)},
	} {
		must(tb, t.join(keyOf(r.to, r.vlan, r.group), r.s))
	}
	var key demuxRuleKey
	var rule demuxRule
	for it := b.objs.Rules.Iterate(); it.Next(&key, &rule); {
		b.ref.rules[key] = rule
	}
	return b
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// counts returns the counters of all reasons and of all rules.
func (b *bench) counts(tb testing.TB) map[string]Counter {
	tb.Helper()
	all := map[string]Counter{}
	t := table{&b.objs.demuxMaps}
	for i, name := range reasons {
		c, err := t.read(uint32(i))
		must(tb, err)
		all[name] = c
	}
	for key, rule := range b.ref.rules {
		c, err := t.read(rule.Counter)
		must(tb, err)
		all[ruleName(key)] = c
	}
	return all
}

func ruleName(key demuxRuleKey) string { return fmt.Sprintf("rule %x", key) }

// run gives a frame to the program and compares the verdict and every counter with the reference's.
func (b *bench) run(tb testing.TB, what string, frame []byte) verdict {
	tb.Helper()
	want := b.ref.judge(frame)
	before := b.counts(tb)
	got, err := b.objs.KhamsinDemux.Run(&ebpf.RunOptions{Data: frame})
	if err != nil {
		tb.Fatalf("%s: run on %d bytes: %v", what, len(frame), err)
	}
	if got != want.action {
		tb.Fatalf("%s: verdict %d, want %d (%s)\n%x", what, got, want.action, reasons[want.reason], frame)
	}
	counts := map[string]bool{reasons[want.reason]: true}
	if want.rule != nil {
		counts[ruleName(*want.rule)] = true
	}
	for name, after := range b.counts(tb) {
		moved := Counter{after.Packets - before[name].Packets, after.Bytes - before[name].Bytes}
		if expected := (Counter{1, uint64(len(frame))}); counts[name] && moved != expected {
			tb.Fatalf("%s: counter %q moved by %+v, want %+v\n%x", what, name, moved, expected, frame)
		}
		if !counts[name] && moved != (Counter{}) {
			tb.Fatalf("%s: counter %q moved, want %s\n%x", what, name, reasons[want.reason], frame)
		}
	}
	return want
}

// craft says what a frame is made of.
type craft struct {
	to      netip.AddrPort
	tags    []uint16 // VLAN identifiers
	options int      // bytes of IPv4 options
	edit    func(ip []byte)
	payload []byte
	pad     int // bytes behind the IP packet
}

func (c craft) frame() []byte {
	udp := binary.BigEndian.AppendUint16(nil, 9999)
	udp = binary.BigEndian.AppendUint16(udp, c.to.Port())
	udp = binary.BigEndian.AppendUint16(udp, uint16(8+len(c.payload)))
	udp = append(udp, 0, 0)
	udp = append(udp, c.payload...)
	var ip []byte
	kind := uint16(0x0800)
	if c.to.Addr().Is4() {
		ip = make([]byte, 20+c.options)
		ip[0] = byte(0x45 + c.options/4)
		binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)+len(udp)))
		ip[8], ip[9] = 1, 17
		copy(ip[16:], c.to.Addr().AsSlice())
	} else {
		kind = 0x86dd
		ip = make([]byte, 40)
		ip[0], ip[6], ip[7] = 0x60, 17, 1
		binary.BigEndian.PutUint16(ip[4:], uint16(len(udp)))
		copy(ip[24:], c.to.Addr().AsSlice())
	}
	ip = append(ip, udp...)
	if c.edit != nil {
		c.edit(ip)
	}
	frame := make([]byte, 12)
	for _, id := range c.tags {
		frame = append(frame, 0x81, 0, byte(id>>8)|0x20, byte(id)) // priority 1
	}
	frame = binary.BigEndian.AppendUint16(frame, kind)
	return append(append(frame, ip...), make([]byte, c.pad)...)
}

// packet returns a sealed packet of a group.
func packet(group uint32, size int) []byte {
	b := make([]byte, max(size, wire.HeaderLen))
	h := wire.Header{Kind: wire.KindData, Group: group, System: 77, View: 3, Seq: 4}
	h.Encode(b)
	for i := wire.HeaderLen; i < len(b); i++ {
		b[i] = byte(i * 7)
	}
	wire.Seal(b)
	return b
}

// sound tells whether a packet's checksum is right.
func sound(b []byte) bool {
	again := bytes.Clone(b)
	wire.Seal(again)
	return bytes.Equal(again, b)
}

// damaged returns a packet with one bit turned, behind the group.
func damaged(size int) []byte {
	b := packet(5, size)
	b[len(b)-1] ^= 1
	return b
}

func put16(at int, v uint16) func([]byte) {
	return func(ip []byte) { binary.BigEndian.PutUint16(ip[at:], v) }
}

func put8(at int, v byte) func([]byte) { return func(ip []byte) { ip[at] = v } }

// cases are crafted frames, and what the program must count them as.
//
// immutable: a table
var cases = []struct {
	name string
	craft
	want demuxReason
}{
	{"unicast", craft{to: unicast, payload: packet(5, 64)}, demuxReasonCOUNT_VACANT},
	{"unicast, nothing of ours", craft{to: unicast, payload: []byte("hello")}, demuxReasonCOUNT_VACANT},
	{"empty datagram", craft{to: unicast}, demuxReasonCOUNT_VACANT},
	{"padded", craft{to: unicast, pad: 30}, demuxReasonCOUNT_VACANT},
	{"IP options", craft{to: unicast, options: 40, payload: packet(5, 64)}, demuxReasonCOUNT_VACANT},
	{"options beyond the packet", craft{to: unicast, edit: put8(0, 0x4f)}, demuxReasonCOUNT_MALFORMED},
	{"IPv6", craft{to: unicast6, payload: packet(5, 64)}, demuxReasonCOUNT_VACANT},
	{"IPv6 multicast", craft{to: byGroup6, payload: packet(5, 64)}, demuxReasonCOUNT_VACANT},
	{"IPv6 multicast, unjoined", craft{to: byGroup6, payload: packet(9, 64)}, demuxReasonCOUNT_UNJOINED},
	{"IPv6 with extension headers", craft{to: unicast6, edit: put8(6, 0)}, demuxReasonCOUNT_OTHER},
	{"IPv6 fragment", craft{to: unicast6, edit: put8(6, 44)}, demuxReasonCOUNT_FRAGMENT},
	{"IPv6, too short", craft{to: unicast6, edit: put16(4, 2000)}, demuxReasonCOUNT_MALFORMED},
	{"another host", craft{to: elsewhere, payload: packet(5, 64)}, demuxReasonCOUNT_FOREIGN},
	{"tagged", craft{to: unicast, tags: []uint16{benchVLAN}}, demuxReasonCOUNT_VACANT},
	{"tagged with another VLAN", craft{to: unicast, tags: []uint16{7}}, demuxReasonCOUNT_FOREIGN},
	{"tagged with priority only", craft{to: unicast, tags: []uint16{0}}, demuxReasonCOUNT_VACANT},
	{"tagged twice", craft{to: unicast, tags: []uint16{0, 0}}, demuxReasonCOUNT_OTHER},
	{"group of one", craft{to: byGroup, payload: packet(5, 64)}, demuxReasonCOUNT_VACANT},
	{"group of two", craft{to: byGroup, payload: packet(6, 64)}, demuxReasonCOUNT_STACK},
	{"group of nobody", craft{to: byGroup, payload: packet(7, 64)}, demuxReasonCOUNT_UNJOINED},
	{"no group", craft{to: byGroup, payload: packet(0, 64)}, demuxReasonCOUNT_STACK},
	{"by group, nothing of ours", craft{to: byGroup, payload: []byte("hello")}, demuxReasonCOUNT_STACK},
	{"header cut off", craft{to: byGroup, payload: packet(7, 64)[:39]}, demuxReasonCOUNT_STACK},
	{"two members", craft{to: shared, payload: packet(7, 64)}, demuxReasonCOUNT_STACK},
	{"group of nobody, not exclusive", craft{to: halfOpen, payload: packet(7, 64)}, demuxReasonCOUNT_FOREIGN},
	{"address of nobody", craft{to: unjoined, payload: packet(5, 64)}, demuxReasonCOUNT_UNJOINED},
	{"port of nobody", craft{to: nobody, payload: packet(5, 64)}, demuxReasonCOUNT_FOREIGN},
	{"too long for the socket", craft{to: short, payload: packet(5, 64)}, demuxReasonCOUNT_LONG},
	{"short enough", craft{to: short, payload: packet(5, 58)}, demuxReasonCOUNT_VACANT},
	{"verified", craft{to: verified, payload: packet(5, 1400)}, demuxReasonCOUNT_VACANT},
	{"verified, header only", craft{to: verified, payload: packet(5, 40)}, demuxReasonCOUNT_VACANT},
	{"verified, nothing of ours", craft{to: verified, payload: []byte("hello")}, demuxReasonCOUNT_VACANT},
	{"damaged", craft{to: verified, payload: damaged(1400)}, demuxReasonCOUNT_CHECKSUM},
	{"damaged, short", craft{to: verified, payload: damaged(41)}, demuxReasonCOUNT_CHECKSUM},
	{"damaged, not verified", craft{to: unicast, payload: damaged(100)}, demuxReasonCOUNT_VACANT},
	{"TCP", craft{to: unicast, edit: put8(9, 6)}, demuxReasonCOUNT_OTHER},
	{"IGMP", craft{to: byGroup, edit: put8(9, 2)}, demuxReasonCOUNT_OTHER},
	{"first fragment", craft{to: unicast, edit: put16(6, 0x2000)}, demuxReasonCOUNT_FRAGMENT},
	{"later fragment", craft{to: unicast, edit: put16(6, 0x0010)}, demuxReasonCOUNT_FRAGMENT},
	{"not to be fragmented", craft{to: unicast, edit: put16(6, 0x4000)}, demuxReasonCOUNT_VACANT},
	{"version 5", craft{to: unicast, edit: put8(0, 0x55)}, demuxReasonCOUNT_MALFORMED},
	{"header of 16 bytes", craft{to: unicast, edit: put8(0, 0x44)}, demuxReasonCOUNT_MALFORMED},
	{"total length beyond the frame", craft{to: unicast, edit: put16(2, 1400)}, demuxReasonCOUNT_MALFORMED},
	{"total length below the header", craft{to: unicast, edit: put16(2, 19)}, demuxReasonCOUNT_MALFORMED},
	{"UDP length beyond the packet", craft{to: unicast, edit: put16(24, 9)}, demuxReasonCOUNT_MALFORMED},
	{"UDP length below its header", craft{to: unicast, edit: put16(24, 7)}, demuxReasonCOUNT_MALFORMED},
	{"room in the packet behind the datagram", craft{to: unicast, payload: []byte("hello"), edit: put16(24, 10)},
		demuxReasonCOUNT_VACANT},
}

// Each crafted frame is counted as it should be, and the reference agrees with the program on it and on each of its
// beginnings.
//
// rows: IPM-18
func TestDemuxVerdicts(t *testing.T) {
	b := newBench(t)
	for _, tc := range cases {
		frame := tc.frame()
		if v := b.run(t, tc.name, frame); v.reason != tc.want {
			t.Errorf("%s: %s, want %s", tc.name, reasons[v.reason], reasons[tc.want])
		}
		for n := 14; n < len(frame); n += 1 + n/100 { // the kernel's bench takes no frames shorter than a header
			b.run(t, fmt.Sprintf("%s, %d bytes of it", tc.name, n), frame[:n])
		}
	}
	arp := append(make([]byte, 12), 0x08, 0x06)
	if v := b.run(t, "ARP", append(arp, make([]byte, 28)...)); v.reason != demuxReasonCOUNT_OTHER {
		t.Errorf("ARP: %s", reasons[v.reason])
	}
}

// Frames with bytes turned at random are judged as by the reference.
func TestDemuxHostile(t *testing.T) {
	b := newBench(t)
	rnd := rand.New(rand.NewPCG(1, 2))
	rounds := 3000
	if testing.Short() {
		rounds = 300
	}
	for i := range rounds {
		frame := cases[rnd.IntN(len(cases))].frame()
		for range 1 + rnd.IntN(4) {
			frame[rnd.IntN(min(len(frame), 100))] = byte(rnd.Uint32())
		}
		b.run(t, fmt.Sprintf("round %d", i), frame)
	}
}

// A frame in several buffers: its headers are in the first, and what is behind is not verified.
func TestDemuxSeveralBuffers(t *testing.T) {
	b := newBench(t)
	for slot := range b.ref.slots {
		s := demuxSlot{Limit: 10000, Flags: b.ref.slots[slot].Flags}
		b.ref.slots[slot] = s
		must(t, b.objs.Slots.Put(slot, &s))
	}
	for _, to := range []netip.AddrPort{unicast, byGroup} {
		b.run(t, "8000 bytes", craft{to: to, payload: packet(5, 8000)}.frame())
	}
	b.run(t, "damaged, beyond what is verified", craft{to: verified, payload: damaged(8000)}.frame())
}

// FuzzDemux compares the program's verdict and counters with the reference's on any frame.
func FuzzDemux(f *testing.F) {
	b := newBench(f)
	for _, tc := range cases {
		f.Add(tc.frame())
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		if len(frame) < 14 || len(frame) > 3000 {
			t.Skip("the kernel's test bench takes no such frame in one buffer")
		}
		b.run(t, "fuzz", frame)
	})
}

// What the program takes for a packet, measured by the kernel.
func BenchmarkDemux(b *testing.B) {
	bench := newBench(b)
	for _, bc := range []struct {
		name  string
		frame []byte
	}{
		{"socket", craft{to: byGroup, payload: packet(5, 64)}.frame()},
		{"unjoined", craft{to: byGroup, payload: packet(7, 64)}.frame()},
		{"foreign", craft{to: elsewhere, payload: packet(7, 64)}.frame()},
		{"verified-64", craft{to: verified, payload: packet(5, 64)}.frame()},
		{"verified-1400", craft{to: verified, payload: packet(5, 1400)}.frame()},
	} {
		b.Run(bc.name, func(b *testing.B) {
			_, took, err := bench.objs.KhamsinDemux.Benchmark(bc.frame, b.N, b.ResetTimer)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(took.Nanoseconds()), "ns/packet")
		})
	}
}
