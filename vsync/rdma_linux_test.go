//go:build cgo && rdma

package vsync

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// controlPort is where the left one of two machines waits for the right one's word.
const controlPort = 18791

// peersPatience is how long one machine waits for the other.
const peersPatience = 90 * time.Second

// machinePair is what the two machines of a test have between them, besides RDMA.
type machinePair struct {
	t       *testing.T
	left    bool
	ifName  string
	encoder *json.Encoder
	decoder *json.Decoder
}

// newMachinePair meets the other machine. The one with the lower address is the left one.
func newMachinePair(t *testing.T) *machinePair {
	t.Helper()
	self, peer := os.Getenv("KHAMSIN_RDMA_SELF"), os.Getenv("KHAMSIN_RDMA_PEER")
	if self == "" || peer == "" {
		if slices.Contains(strings.Split(os.Getenv("KHAMSIN_REQUIRE"), ","), "rdma-peer") {
			t.Fatal("KHAMSIN_RDMA_SELF and KHAMSIN_RDMA_PEER do not say where two machines with RDMA are")
		}
		t.Skip("no second machine: KHAMSIN_RDMA_SELF and KHAMSIN_RDMA_PEER are not set")
	}
	a, b := netip.MustParseAddr(self), netip.MustParseAddr(peer)
	p := &machinePair{t: t, left: a.Less(b), ifName: interfaceOf(t, a)}
	conn := p.connect(a, b)
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(2 * peersPatience)); err != nil {
		t.Fatal(err)
	}
	p.encoder, p.decoder = json.NewEncoder(conn), json.NewDecoder(conn)
	return p
}

func interfaceOf(t *testing.T, ip netip.Addr) string {
	t.Helper()
	list, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, ifi := range list {
		addrs, err := ifi.Addrs()
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range addrs {
			if prefix, err := netip.ParsePrefix(a.String()); err == nil && prefix.Addr() == ip {
				return ifi.Name
			}
		}
	}
	t.Fatalf("no interface has %v", ip)
	return ""
}

// connect makes the connection: left listens, right calls until left does.
func (p *machinePair) connect(self, peer netip.Addr) net.Conn {
	p.t.Helper()
	deadline := time.Now().Add(peersPatience)
	if p.left {
		l, err := net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(netip.AddrPortFrom(self, controlPort)))
		if err != nil {
			p.t.Fatal(err)
		}
		defer l.Close()
		if err := l.SetDeadline(deadline); err != nil {
			p.t.Fatal(err)
		}
		conn, err := l.Accept()
		if err != nil {
			p.t.Fatalf("the other machine does not call: %v", err)
		}
		return conn
	}
	for {
		conn, err := net.DialTimeout("tcp4", netip.AddrPortFrom(peer, controlPort).String(), time.Second)
		if err == nil {
			return conn
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("the other machine does not answer: %v", err)
		}
		time.Sleep(100 * time.Millisecond) // between two calls; the limit is above
	}
}

// tell sends v to the other machine.
func (p *machinePair) tell(v any) {
	p.t.Helper()
	if err := p.encoder.Encode(v); err != nil {
		p.t.Fatalf("tell the other machine: %v", err)
	}
}

// hear receives into v what the other machine tells.
func (p *machinePair) hear(v any) {
	p.t.Helper()
	if err := p.decoder.Decode(v); err != nil {
		p.t.Fatalf("hear the other machine: %v", err)
	}
}

// meet returns when both machines have come to a point of the test.
func (p *machinePair) meet(where string) {
	p.t.Helper()
	p.tell(where)
	var there string
	if p.hear(&there); there != where {
		p.t.Fatalf("the other machine is at %q, this one at %q", there, where)
	}
}

// start starts a system over RDMA with one member.
func (p *machinePair) start(opts ...Option) *member {
	p.t.Helper()
	opts = append([]Option{
		WithTransport(RDMA()), WithInterfaces(p.ifName), WithOracleSize(1), WithDiscovery(20 * time.Second),
		WithHeartbeat(250 * time.Millisecond), WithSuspectAfter(4 * time.Second), WithMute(),
	}, opts...)
	s, err := Start(context.Background(), opts...)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() {
		if err := s.Close(); err != nil {
			p.t.Error(err)
		}
	})
	return joined(p.t, s, "over rdma")
}

// burst sends numbers from a member, a tenth of them safely. A member that is killed meanwhile stops.
func (m *member) burst(t *testing.T, base uint64, n int, over chan<- struct{}) {
	defer close(over)
	for i := range n {
		f := Ordered
		if i%10 == 9 {
			f = Safe
		}
		b := []byte{7: 0}
		for j := range b {
			b[j] = byte((base + uint64(i)) >> (8 * j))
		}
		if err := m.group.SendBytes(within(t), f, codeNumber, b); err != nil {
			if !errors.Is(err, ErrNotRunning) {
				t.Error(err)
			}
			return
		}
	}
}

// record is what a member went through, as it travels between the machines.
type record struct {
	Name    string
	Base    uint64 // of the numbers that it sent
	Killed  bool
	Late    bool // it joined in the middle, with the state of the others
	Entries []entry
	Views   [][]string // members of each view
	State   []uint64
}

func (m *member) record(name string, base uint64) record {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := record{Name: name, Base: base, Entries: slices.Clone(m.log), State: slices.Clone(m.state)}
	for _, v := range m.views {
		var names []string
		for _, a := range v.Members {
			names = append(names, a.String())
		}
		r.Views = append(r.Views, names)
	}
	return r
}

// Numbers of the messages of one member, and markers that end the test.
const (
	perMember = 150
	markers   = uint64(1) << 40
)

// Two machines, four members that multicast in one order; one is killed in the midst of it and another joins. All that
// survive go through the same views with the same messages in the same order, and the newcomer has their state.
//
// rows: TRN-09
func TestRDMAPeers(t *testing.T) {
	p := newMachinePair(t)
	var members []*member
	if p.left {
		members = append(members, p.start(WithFastStart()))
		p.meet("founded")
		members = append(members, p.start())
	} else {
		p.meet("founded")
		members = append(members, p.start(), p.start())
	}
	for _, m := range members {
		m.untilSize(t, 4)
	}
	p.meet("four members")
	bases := []uint64{1 << 20, 2 << 20}
	if !p.left {
		bases = []uint64{3 << 20, 4 << 20}
	}
	over := []chan struct{}{make(chan struct{}), make(chan struct{})}
	for i, m := range members {
		go m.burst(t, bases[i], perMember, over[i])
	}
	late := (*member)(nil)
	if !p.left { // kill the second one in the midst of its burst
		members[1].untilCount(t, perMember/2)
		members[1].sys.Kill()
		<-over[1]
		members[0].untilSize(t, 3)
		late = p.start()
	} else {
		<-over[1]
	}
	<-over[0]
	for i, m := range members {
		if p.left || i == 0 {
			m.until(t, "the views of the kill and the join", func() bool { return len(m.views) > 2 && sizes(m.views) })
		}
	}
	p.meet("killed and joined")
	var records []record
	if !p.left {
		records = p.finish(map[string]*member{"R1": members[0], "R2 killed": members[1], "R3 late": late})
		p.tell(records)
		var verdict string
		if p.hear(&verdict); verdict != "" {
			t.Error(verdict)
		}
		return
	}
	records = p.finish(map[string]*member{"L1": members[0], "L2": members[1]})
	var theirs []record
	p.hear(&theirs)
	records = append(records, theirs...)
	faults := judgeRecords(records)
	p.tell(strings.Join(faults, "\n"))
	for _, f := range faults {
		t.Error(f)
	}
	t.Logf("AGREE: %d members on two machines, %d views, %d messages in one order", len(records), len(records[0].Views),
		len(records[0].State))
}

// sizes tells whether a view of three members was followed by one of four.
func sizes(views []*View) bool {
	three := slices.IndexFunc(views[1:], func(v *View) bool { return v.Size() == 3 && len(v.Left) > 0 })
	return three >= 0 && views[len(views)-1].Size() == 4
}

// finish sends a marker from each living member, waits for all four of them, and returns the records.
func (p *machinePair) finish(members map[string]*member) []record {
	names := slices.Sorted(maps.Keys(members))
	side := uint64(0)
	if p.left {
		side = 10
	}
	for i, name := range names {
		if !strings.Contains(name, "killed") {
			members[name].send(p.t, Ordered, markers+side+uint64(i))
		}
	}
	bases := map[string]uint64{"L1": 1 << 20, "L2": 2 << 20, "R1": 3 << 20, "R2 killed": 4 << 20}
	var list []record
	for _, name := range names {
		m := members[name]
		if !strings.Contains(name, "killed") {
			m.until(p.t, "the markers of four members", func() bool {
				n := 0
				for _, number := range m.state {
					if number >= markers {
						n++
					}
				}
				return n == 4
			})
		}
		r := m.record(name, bases[name])
		r.Killed, r.Late = strings.Contains(name, "killed"), strings.Contains(name, "late")
		list = append(list, r)
	}
	p.meet("all delivered")
	return list
}
