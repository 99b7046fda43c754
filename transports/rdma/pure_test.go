package rdma

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/frame"
)

// This binary may or may not have RDMA inside, and the host a device: Open says what is missing.
func TestOpenWithoutDevice(t *testing.T) {
	_, err := Open(Config{Device: "nosuch0"})
	if !errors.Is(err, ErrNotBuilt) && !errors.Is(err, ErrNoDevice) {
		t.Errorf("Open: %v", err)
	}
	t.Logf("Open says: %v", err)
}

// writeGIDs makes a directory as the kernel has it for a device's port.
func writeGIDs(t *testing.T, entries ...gid) (root string) {
	t.Helper()
	root = t.TempDir()
	for _, e := range entries {
		ip := e.addr.As16()
		var groups []string
		for i := 0; i < 16; i += 2 {
			groups = append(groups, fmt.Sprintf("%02x%02x", ip[i], ip[i+1]))
		}
		for name, text := range map[string]string{
			"gids": strings.Join(groups, ":"), "gid_attrs/types": e.kind, "gid_attrs/ndevs": e.ndev,
		} {
			dir := filepath.Join(root, "dev0/ports/1", name)
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			if text == "" {
				continue
			}
			file := filepath.Join(dir, fmt.Sprint(e.index))
			if err := os.WriteFile(file, []byte(text+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	return root
}

func v4(s string) netip.Addr { return netip.AddrFrom16(netip.MustParseAddr(s).As16()) }

// Of a port's addresses the one that can do most is taken, and one that was asked for before all others.
func TestChooseGID(t *testing.T) {
	roce := []gid{
		{0, netip.MustParseAddr("fe80::1"), "IB/RoCE v1", "eth1"},
		{1, netip.MustParseAddr("fe80::1"), typeRoCE2, "eth1"},
		{2, v4("10.0.0.1"), "IB/RoCE v1", "eth1"},
		{3, v4("10.0.0.1"), typeRoCE2, "eth1"},
		{4, v4("10.0.0.2"), typeRoCE2, "eth1"},
		{5, v4("10.1.0.1"), typeRoCE2, "eth1.7"},
		{6, netip.IPv6Unspecified(), "", ""},
	}
	infiniband := []gid{{0, netip.MustParseAddr("fe80::2:c903:1:2"), "IB/RoCE v1", ""}}
	for _, tc := range []struct {
		list   []gid
		ifName string
		ip     netip.Addr
		want   int
	}{
		{roce, "", netip.Addr{}, 3},
		{roce, "eth1", netip.Addr{}, 3},
		{roce, "eth1", netip.MustParseAddr("10.0.0.2"), 4},
		{roce, "eth1.7", netip.Addr{}, 5},
		{roce, "", netip.MustParseAddr("fe80::1"), 1},
		{roce[:2], "", netip.Addr{}, 1},
		{roce[:1], "", netip.Addr{}, -1},
		{roce, "eth2", netip.Addr{}, -1},
		{roce, "eth1", netip.MustParseAddr("10.9.9.9"), -1},
		{infiniband, "ib0", netip.Addr{}, 0},
		{infiniband, "ib0", netip.MustParseAddr("10.0.0.1"), 0}, // it is not the address of a port there
		{nil, "", netip.Addr{}, -1},
	} {
		list, err := readGIDs(writeGIDs(t, append(tc.list, gid{7, netip.IPv6Unspecified(), "", ""})...), "dev0", 1)
		if err != nil {
			t.Fatal(err)
		}
		got, err := chooseGID(list, tc.ifName, tc.ip)
		switch {
		case tc.want < 0 && err == nil:
			t.Errorf("%q %v: got %+v, want none", tc.ifName, tc.ip, got)
		case tc.want >= 0 && (err != nil || got.index != tc.want):
			t.Errorf("%q %v: got %+v, %v, want %d", tc.ifName, tc.ip, got, err, tc.want)
		}
	}
	if _, err := readGIDs(t.TempDir(), "dev0", 1); err == nil {
		t.Error("a device that is not there has addresses")
	}
	for _, text := range []string{"", "fe80", "zz80:0000:0000:0000:0000:0000:0000:0001", strings.Repeat("00", 17)} {
		if _, err := parseGID(text); err == nil {
			t.Errorf("%q is a GID", text)
		}
	}
}

// The header in front of a datagram tells the sender and the channel, in both of its forms.
func TestReadHeader(t *testing.T) {
	packet := func(from, to string) *[grhBytes]byte {
		var h [grhBytes]byte
		a, b := netip.MustParseAddr(from), netip.MustParseAddr(to)
		if a.Is4() {
			h[20] = 0x45
			copy(h[32:], a.AsSlice())
			copy(h[36:], b.AsSlice())
			return &h
		}
		h[0] = 0x60
		copy(h[8:], a.AsSlice())
		copy(h[24:], b.AsSlice())
		return &h
	}
	for _, tc := range []struct {
		from, to string
		ok       bool
		channel  dataplane.Channel
	}{
		{"10.0.0.1", "10.0.0.2", true, 0},
		{"10.0.0.1", "239.0.0.7", true, 7},
		{"10.0.0.1", "239.255.255.255", true, dataplane.ChannelMax},
		{"10.0.0.1", "239.0.0.0", false, 0},
		{"10.0.0.1", "224.0.0.1", false, 0},
		{"fe80::1", "fe80::2", true, 0},
		{"fe80::1", "ff02::1", false, 0},
		{"fe80::1", "ff12:4001:ffff::f00:7", true, 7},
	} {
		ipv4 := netip.MustParseAddr(tc.from).Is4()
		o := readHeader(packet(tc.from, tc.to), ipv4)
		from := netip.AddrFrom16(o.source).Unmap().String()
		if o.ok != tc.ok || o.ok && (o.channel != tc.channel || from != tc.from) {
			t.Errorf("%s to %s: %+v", tc.from, tc.to, o)
		}
		if other := readHeader(packet(tc.from, tc.to), !ipv4); other.ok {
			t.Errorf("%s to %s read as the other form: %+v", tc.from, tc.to, other)
		}
	}
}

// What is missing of a stream is counted once; overtaken datagrams and senders that begin anew are no loss.
func TestNumbers(t *testing.T) {
	var sender, receiver numbers
	sender.init()
	receiver.init()
	a, b := stream{channel: 1}, stream{peer: dataplane.Endpoint{Port: 5}}
	for i := range uint32(3) {
		if x, y := sender.next(a), sender.next(b); x != i || y != i {
			t.Fatalf("numbers %d and %d, want %d", x, y, i)
		}
	}
	for _, tc := range []struct {
		s      stream
		number uint32
		want   uint64
	}{
		{a, 17, 0}, // joined in the middle
		{a, 18, 0}, {b, 0, 0}, {a, 21, 2}, {a, 22, 0}, {b, 1, 0},
		{a, 20, 0}, {a, 21, 0}, // overtaken
		{b, 0, 0}, {b, 1, 0}, // anew
		{a, 1<<32 - 1, 0}, {a, 0, 0}, {a, 2, 1}, // around the end of numbers
	} {
		if got := receiver.missing(tc.s, tc.number); got != tc.want {
			t.Errorf("%+v: %d missing", tc, got)
		}
	}
	for i := range uint32(2 * streamsMax) { // as many streams as a stranger likes
		receiver.missing(stream{peer: dataplane.Endpoint{Port: i}}, i)
	}
	if len(receiver.table) > streamsMax {
		t.Errorf("%d streams are remembered", len(receiver.table))
	}
	if allocs := testing.AllocsPerRun(100, func() { sender.next(a); sender.next(b) }); allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}

// Sizes that were left open fit each other and the port.
func TestDefaults(t *testing.T) {
	for _, tc := range []struct {
		cfg     Config
		portMTU int
		mtu     int
	}{
		{Config{}, 1024, 1024},
		{Config{}, 4096, 4096},
		{Config{MTU: 1400}, 4096, 1400},
		{Config{Arena: frame.Config{ChunkSize: 2048}}, 4096, 2048 - frame.DefaultHeadroom},
	} {
		tc.cfg.Device = "x"
		got := tc.cfg.withDefaults(tc.portMTU)
		if got.MTU != tc.mtu {
			t.Errorf("%+v: MTU %d, want %d", tc.cfg, got.MTU, tc.mtu)
		}
		if err := errors.Join(tc.cfg.validate(), got.checkSizes(tc.portMTU, 1<<23)); err != nil {
			t.Errorf("%+v: %v", tc.cfg, err)
		}
		if got.qkey()>>31 != 0 {
			t.Errorf("Q_Key %#x belongs to the kernel", got.qkey())
		}
	}
	for want, cfg := range map[string]Config{
		"MTU 2000 is above the 1024":  {MTU: 2000},
		"Headroom 10":                 {Arena: frame.Config{Headroom: 10}},
		"Large 1000 is not above":     {Large: 1000},
		"do not hold a frame of 8000": {Large: 8000, Arena: frame.Config{LargeRun: 3}},
		"port's longest message":      {Large: 8193},
		"longest datagram":            {MTU: 100, Arena: frame.Config{ChunkSize: 1024, RunChunks: 1}},
	} {
		cfg.Device = "x"
		if err := cfg.withDefaults(1024).checkSizes(1024, 8192); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", cfg, err, want)
		}
	}
}

func testKey() key {
	return key{
		host: netip.MustParseAddrPort("10.0.0.1:4711"), token: token{1, 2, 3}, addr: 1 << 40, size: 1 << 20, rkey: 7,
	}
}

func testPair() pairInfo { return pairInfo{gid: [16]byte{15: 1}, number: 77, psn: psnMax} }

// The records of the exchange are what they were before they travelled, and nothing else is one.
func TestExchangeRecords(t *testing.T) {
	k := testKey()
	if got, err := parseKey(k.marshal()); err != nil || got != k {
		t.Errorf("key %+v, %v", got, err)
	}
	h := hello{token: token{4}, pair: testPair()}
	if got, err := parseHello(h.marshal()); err != nil || got != h {
		t.Errorf("hello %+v, %v", got, err)
	}
	if got, err := parseWelcome(marshalWelcome(testPair())); err != nil || got != testPair() {
		t.Errorf("welcome %+v, %v", got, err)
	}
	for _, change := range []func(k *key){
		func(k *key) { k.size = 0 },
		func(k *key) { k.size = regionMax + 1 },
		func(k *key) { k.addr = 1<<64 - 10 },
		func(k *key) { k.host = netip.MustParseAddrPort("10.0.0.1:0") },
		func(k *key) { k.host = netip.MustParseAddrPort("239.0.0.1:5") },
		func(k *key) { k.host = netip.MustParseAddrPort("0.0.0.0:5") },
	} {
		k := testKey()
		change(&k)
		if _, err := parseKey(k.marshal()); err == nil {
			t.Errorf("%+v is a key", k)
		}
	}
}

func testAsk() railWord {
	return railWord{kind: railAsk, attempt: 1<<63 + 5, number: 77, psn: psnMax, large: LargeMax, port: 4711}
}

// Words about rails are what they were before they travelled, and nothing else is one.
func TestRailWords(t *testing.T) {
	answer := testAsk()
	answer.kind, answer.port = railAnswer, 0
	for _, w := range []railWord{testAsk(), answer, {kind: railEnd, attempt: 9}} {
		var b [railWordBytes]byte
		w.put(b[:])
		if got, ok := parseRailWord(b[:]); !ok || got != w {
			t.Errorf("%+v became %+v, %v", w, got, ok)
		}
		for _, short := range [][]byte{nil, b[:31], append(b[:], 0)} {
			if _, ok := parseRailWord(short); ok {
				t.Errorf("%d bytes are a word", len(short))
			}
		}
	}
	for _, change := range []func(w *railWord){
		func(w *railWord) { w.kind = 0 },
		func(w *railWord) { w.kind = 4 },
		func(w *railWord) { w.kind = railEnd },
		func(w *railWord) { w.kind = railAnswer },
		func(w *railWord) { w.number = 0 },
		func(w *railWord) { w.number = qpNumberMax },
		func(w *railWord) { w.psn = psnMax + 1 },
		func(w *railWord) { w.large = 0 },
		func(w *railWord) { w.large = LargeMax + 1 },
		func(w *railWord) { w.port = 0 },
	} {
		w := testAsk()
		change(&w)
		var b [railWordBytes]byte
		w.put(b[:])
		if got, ok := parseRailWord(b[:]); ok {
			t.Errorf("%+v is a word", got)
		}
	}
}

// A channel's group over InfiniBand is that of its IPv4 address as the kernel makes it, in the port's partition.
func TestMGIDs(t *testing.T) {
	for _, tc := range []struct {
		ch   dataplane.Channel
		pkey uint16
		want string
	}{
		{1, 0xffff, "ff12:4001:ffff::f00:1"},
		{dataplane.ChannelMax, 0x8001, "ff12:4001:8001::fff:ffff"},
		{0x123456, 0xffff, "ff12:4001:ffff::f12:3456"},
	} {
		g := mgidOf(tc.ch, tc.pkey)
		if got := netip.AddrFrom16(g).String(); got != tc.want {
			t.Errorf("channel %d in %#x is %s, want %s", tc.ch, tc.pkey, got, tc.want)
		}
		wide := g
		wide[1] = 0x15 // the scope of a site
		if channelOfMGID(g) != tc.ch || channelOfMGID(wide) != tc.ch {
			t.Errorf("%s is channel %d", tc.want, channelOfMGID(g))
		}
	}
	for _, text := range []string{
		"ff12:401b:ffff::f00:1", // IPoIB's own
		"ff12:4001:ffff::1",     // 224.0.0.1
		"ff02:4001:ffff::f00:1", "ff12:4001:ffff:1::f00:1", "fe80::1", "ff12:4001:ffff::f00:0",
	} {
		if ch := channelOfMGID(netip.MustParseAddr(text).As16()); ch != 0 {
			t.Errorf("%s is channel %d", text, ch)
		}
	}
}

// joinedEvent returns the event of a join as the kernel writes it.
func joinedEvent(number uint64, event, status uint32, group string) []byte {
	b := make([]byte, ucmEventBytes)
	binary.NativeEndian.PutUint64(b, number)
	binary.NativeEndian.PutUint32(b[12:], event)
	binary.NativeEndian.PutUint32(b[16:], status)
	g := netip.MustParseAddr(group).As16()
	copy(b[28:], g[:])
	binary.NativeEndian.PutUint16(b[52:], 0xc003)
	b[54], b[56] = 2, 3
	return b
}

// The identifier of a host is the one that it was last heard with, and there is no limit to how many can be heard.
func TestLIDs(t *testing.T) {
	var l lids
	a, b := [16]byte{15: 1}, [16]byte{15: 2}
	if l.of(a) != 0 {
		t.Error("an identifier of a host that was not heard")
	}
	l.learn(a, 5)
	l.learn(a, 5)
	l.learn(b, 6)
	l.learn(a, 7)
	l.learn(a, 0) // it came by a way without
	if l.of(a) != 7 || l.of(b) != 6 {
		t.Errorf("%d and %d", l.of(a), l.of(b))
	}
	for i := range 4 * lidsMax {
		l.learn([16]byte{byte(i >> 8), byte(i), 15: 9}, uint16(1+i))
	}
	if len(l.table) > lidsMax {
		t.Errorf("%d are remembered", len(l.table))
	}
}

// What the connection manager says of a join is read as it is laid out, and what it refuses is an error.
func TestConnectionManagerEvents(t *testing.T) {
	want := membership{number: 7, mgid: mgidOf(5, 0xffff), mlid: 0xc003, sl: 2, rate: 3}
	got, err := parseJoined(joinedEvent(7, ucmJoined, 0, "ff12:4001:ffff::f00:5"))
	if err != nil || got != want {
		t.Errorf("%+v, %v, want %+v", got, err, want)
	}
	if got, err := parseJoined(joinedEvent(7, ucmJoined, 0, "::ffff:239.0.0.5")); err != nil || got.mlid != 0xc003 {
		t.Errorf("RoCE: %+v, %v", got, err)
	}
	for _, b := range [][]byte{
		nil, make([]byte, 300), joinedEvent(7, 13, 0, "ff12:4001:ffff::f00:5"),
		joinedEvent(7, ucmJoined, 1<<32-22, "ff12:4001:ffff::f00:5"), joinedEvent(7, ucmJoined, 0, "fe80::1"),
	} {
		if m, err := parseJoined(b); err == nil {
			t.Errorf("%x is %+v", b, m)
		}
	}
}

// Commands to the connection manager have the lengths that the kernel's structures have, and their fields in place.
func TestConnectionManagerCommands(t *testing.T) {
	ip := netip.MustParseAddr("10.1.2.3")
	group := dataplane.Channel(0x010203).IPv4()
	for name, tc := range map[string]struct {
		b               []byte
		command, answer int
		length, at      int
		want            []byte
	}{
		"create":  {ucmCreateCommand(9), 0, 4, 24, 16, []byte{0x11, 1}},
		"bind":    {ucmBindCommand(5, ip), 2, 0, 40, 8, []byte{2, 0, 0, 0, 10, 1, 2, 3}},
		"join":    {ucmJoinCommand(9, 8, 5, group), 16, 4, 48, 16, []byte{2, 0, 0, 0, 239, 1, 2, 3}},
		"join id": {ucmJoinCommand(9, 8, 5, group), 16, 4, 48, 44, []byte{5, 0, 0, 0}},
		"leave":   {ucmLeaveCommand(9, 6), 17, 4, 16, 8, []byte{6, 0, 0, 0}},
		"destroy": {ucmDestroyCommand(9, 6), 1, 4, 16, 8, []byte{6, 0, 0, 0}},
		"event":   {ucmEventCommand(9), 12, 336, 8, 0, []byte{9}},
	} {
		header := binary.NativeEndian.Uint32(tc.b)
		in, out := binary.NativeEndian.Uint16(tc.b[4:]), binary.NativeEndian.Uint16(tc.b[6:])
		if int(header) != tc.command || int(in) != tc.length || len(tc.b) != 8+tc.length || int(out) != tc.answer {
			t.Errorf("%s: command %d, %d bytes of %d, answer %d", name, header, in, len(tc.b), out)
		}
		if !bytes.HasPrefix(tc.b[8+tc.at:], tc.want) {
			t.Errorf("%s: % x has no % x at %d", name, tc.b, tc.want, tc.at)
		}
	}
}

// Whatever comes by the socket or from an application is a record or an error, and a record says the same again.
func FuzzExchange(f *testing.F) {
	k, h := testKey(), hello{pair: testPair()}
	var ask [railWordBytes]byte
	w := testAsk()
	w.put(ask[:])
	for _, b := range [][]byte{k.marshal(), h.marshal(), marshalWelcome(testPair()), ask[:], nil} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if k, err := parseKey(b); err == nil && (!bytes.Equal(k.marshal(), b) || k.size > regionMax) {
			t.Errorf("key %x became %x", b, k.marshal())
		}
		if h, err := parseHello(b); err == nil && !bytes.Equal(h.marshal(), b) {
			t.Errorf("hello %x became %x", b, h.marshal())
		}
		if p, err := parseWelcome(b); err == nil && !bytes.Equal(marshalWelcome(p), b) {
			t.Errorf("welcome %x became %x", b, marshalWelcome(p))
		}
		if w, ok := parseRailWord(b); ok {
			var again [railWordBytes]byte
			if w.put(again[:]); !bytes.Equal(again[:], b) {
				t.Errorf("word %x became %x", b, again)
			}
		}
		if m, err := parseJoined(b); err == nil && len(b) < 324 {
			t.Errorf("%d bytes are %+v", len(b), m)
		}
		if len(b) >= 16 {
			if ch := channelOfMGID([16]byte(b)); ch > dataplane.ChannelMax {
				t.Errorf("channel %d", ch)
			}
		}
		if len(b) >= grhBytes {
			for _, ipv4 := range []bool{false, true} {
				if o := readHeader((*[grhBytes]byte)(b), ipv4); o.ok && o.channel > dataplane.ChannelMax {
					t.Errorf("channel %d", o.channel)
				}
			}
		}
	})
}
