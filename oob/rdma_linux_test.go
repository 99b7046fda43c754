//go:build cgo && rdma

package oob

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/khamsin-io/khamsin/vsync"
)

const (
	// rdmaPort is where the left one of two machines waits for the right one's word.
	rdmaPort = 18793
	// rdmaPatience is how long one machine waits for the other: their processors are emulated.
	rdmaPatience = 90 * time.Second
)

// machines are the two machines of a test, of which this process is on one.
type machines struct {
	*testing.T
	left    bool
	lossy   bool
	ifName  string
	encoder *json.Encoder
	decoder *json.Decoder
}

// newMachines meets the other machine. The one with the lower address is the left one, and listens.
func newMachines(t *testing.T) *machines {
	t.Helper()
	self, peer := os.Getenv("KHAMSIN_RDMA_SELF"), os.Getenv("KHAMSIN_RDMA_PEER")
	if self == "" || peer == "" {
		if slices.Contains(strings.Split(os.Getenv("KHAMSIN_REQUIRE"), ","), "rdma-peer") {
			t.Fatal("KHAMSIN_RDMA_SELF and KHAMSIN_RDMA_PEER do not say where two machines with RDMA are")
		}
		t.Skip("no second machine: KHAMSIN_RDMA_SELF and KHAMSIN_RDMA_PEER are not set")
	}
	a, b := netip.MustParseAddr(self), netip.MustParseAddr(peer)
	p := &machines{T: t, left: a.Less(b), lossy: os.Getenv("KHAMSIN_RDMA_LOSS") != "", ifName: interfaceWith(t, a)}
	conn := p.call(netip.AddrPortFrom(a, rdmaPort), netip.AddrPortFrom(b, rdmaPort))
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(2 * rdmaPatience)); err != nil {
		t.Fatal(err)
	}
	p.encoder, p.decoder = json.NewEncoder(conn), json.NewDecoder(conn)
	return p
}

func interfaceWith(t *testing.T, ip netip.Addr) string {
	t.Helper()
	list, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range list {
		addrs, err := i.Addrs()
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range addrs {
			if prefix, err := netip.ParsePrefix(a.String()); err == nil && prefix.Addr() == ip {
				return i.Name
			}
		}
	}
	t.Fatalf("no interface has %v", ip)
	return ""
}

// call makes a connection: left listens, right calls until left does.
func (p *machines) call(self, peer netip.AddrPort) net.Conn {
	p.Helper()
	if p.left {
		l, err := net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(self))
		if err != nil {
			p.Fatal(err)
		}
		defer l.Close()
		_ = l.SetDeadline(time.Now().Add(rdmaPatience))
		conn, err := l.Accept()
		if err != nil {
			p.Fatalf("the other machine does not call: %v", err)
		}
		return conn
	}
	for deadline := time.Now().Add(rdmaPatience); ; {
		conn, err := net.DialTimeout("tcp4", peer.String(), time.Second)
		if err == nil {
			return conn
		}
		if time.Now().After(deadline) {
			p.Fatalf("the other machine does not answer: %v", err)
		}
		time.Sleep(100 * time.Millisecond) // between two calls
	}
}

// meet returns when both machines have come to a point of the test.
func (p *machines) meet(where string) {
	p.Helper()
	if err := p.encoder.Encode(where); err != nil {
		p.Fatalf("tell the other machine: %v", err)
	}
	var there string
	if err := p.decoder.Decode(&there); err != nil || there != where {
		p.Fatalf("the other machine is at %q, this one at %q: %v", there, where, err)
	}
}

func (p *machines) context() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), rdmaPatience)
	p.Cleanup(cancel)
	return ctx
}

// system starts a system over RDMA. The first one is the only one that decides on views.
func (p *machines) system(opts ...vsync.Option) *vsync.System {
	p.Helper()
	sys, err := vsync.Start(context.Background(), append([]vsync.Option{
		vsync.WithTransport(vsync.RDMA()), vsync.WithInterfaces(p.ifName), vsync.WithOracleSize(1),
		vsync.WithDiscovery(20 * time.Second), vsync.WithHeartbeat(250 * time.Millisecond),
		vsync.WithSuspectAfter(4 * time.Second), vsync.WithMute(),
	}, opts...)...)
	if err != nil {
		p.Fatal(err)
	}
	p.Cleanup(func() {
		if err := sys.Close(); err != nil {
			p.Error(err)
		}
	})
	return sys
}

// member joins a group with a store; change is called before.
func (p *machines) member(sys *vsync.System, group string, change func(s *Store)) *member {
	p.Helper()
	m := &member{sys: sys, group: sys.NewGroup(group)}
	var err error
	if m.store, err = Attach(m.group); err != nil {
		p.Fatal(err)
	}
	p.Cleanup(func() { _ = m.store.Close() })
	if change != nil {
		change(m.store)
	}
	if err := m.group.Join(p.context()); err != nil {
		p.Fatal(err)
	}
	return m
}

// byTCP makes a store use a chain of connections, and nothing else.
func byTCP(s *Store) { s.sided, s.path.Multicast = nil, false }

// bytesOf returns the same bytes on both machines.
func bytesOf(name string, size int) []byte {
	seed := [32]byte{}
	copy(seed[:], name)
	b := make([]byte, size)
	_, _ = rand.NewChaCha8(seed).Read(b)
	return b
}

// publish makes an object of bytesOf.
func (p *machines) publish(m *member, name string, size int) {
	p.Helper()
	o, err := m.store.Create(name, int64(size))
	if err != nil {
		p.Fatal(err)
	}
	defer o.Close()
	copy(o.Bytes(), bytesOf(name, size))
	if err := m.store.Register(p.context(), o); err != nil {
		p.Fatal(err)
	}
}

// check fetches an object and compares it.
func (p *machines) check(m *member, name string, size int) {
	p.Helper()
	o, err := m.store.Fetch(p.context(), name)
	if err != nil {
		p.Fatal(err)
	}
	defer o.Close()
	if got, want := Digest(o.Bytes()), Digest(bytesOf(name, size)); got != want || o.Digest() != want {
		p.Errorf("object %s has digest %s, of its bytes %s, want %s", name, o.Digest(), got, want)
	}
}

// all replicates an object to everybody, and returns how long it took.
func (p *machines) all(m *member, name string) time.Duration {
	p.Helper()
	began := time.Now()
	if err := m.store.Replicate(name, m.store.Everybody()).Wait(p.context()); err != nil {
		p.Fatal(err)
	}
	return time.Since(began)
}

// round is one object that goes to everybody.
type round struct {
	group string
	size  int
}

// rounds returns a big object, and smaller ones that go both ways in turn, so that times can be compared.
func (p *machines) rounds() []round {
	if p.lossy {
		return []round{{written, 8 << 20}}
	}
	list := []round{{written, 64 << 20}}
	for range 3 {
		list = append(list, round{written, 16 << 20}, round{tcp, 16 << 20})
	}
	return list
}

// The groups of TestRDMAObjects.
const (
	written = "written"
	tcp     = "tcp"
)

// Objects go from one machine to two members on the other from memory to memory, digests compared; beside them, the
// same by TCP. With loss as well.
//
// rows: FUT-04
func TestRDMAObjects(t *testing.T) {
	p := newMachines(t)
	var systems []*vsync.System
	if p.left {
		systems = append(systems, p.system(vsync.WithFastStart()))
		p.meet("founded")
	} else {
		p.meet("founded")
		systems = append(systems, p.system(), p.system())
	}
	groups := map[string][]*member{}
	for _, sys := range systems {
		groups[written] = append(groups[written], p.member(sys, written, nil))
		groups[tcp] = append(groups[tcp], p.member(sys, tcp, byTCP))
	}
	for _, list := range groups {
		for _, m := range list {
			if err := m.store.AwaitMembers(p.context(), 3); err != nil {
				t.Fatal(err)
			}
		}
	}
	p.meet("joined")
	took, moved := map[string][]float64{}, map[string]uint64{}
	for i, r := range p.rounds() {
		name := fmt.Sprint(r.group, " ", i)
		moved[r.group] += uint64(r.size)
		first := groups[r.group][0]
		if p.left {
			p.publish(first, name, r.size)
			d := p.all(first, name).Seconds()
			if i == 0 {
				t.Logf("MEASURED: %d MiB to two members of the other machine in %.1f s (emulated)", r.size>>20, d)
			} else {
				took[r.group] = append(took[r.group], d)
			}
		} else {
			for _, m := range groups[r.group] {
				p.check(m, name, r.size)
			}
		}
		p.meet(name)
		if p.left {
			if err := first.store.Delete(name).Wait(p.context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	p.judge(groups, moved)
	if a, b := took[written], took[tcp]; len(b) > 0 {
		slices.Sort(a)
		slices.Sort(b)
		t.Logf("MEASURED: 16 MiB likewise: written %.2f times as fast as by TCP (%.1f and %.1f s, medians of %d)",
			b[len(b)/2]/a[len(a)/2], a[len(a)/2], b[len(b)/2], len(b))
	}
	p.meet("done")
}

// judge looks by which way the bytes went.
func (p *machines) judge(groups map[string][]*member, bytes map[string]uint64) {
	p.Helper()
	moved := bytes[written]
	for i, m := range groups[written] {
		st := m.store.Stats()
		wrote, landed := moved, moved
		if p.left {
			landed = 0
		} else if i == 1 {
			wrote = 0 // the last one of the chain
		}
		if st.WrittenBytes != wrote || st.LandedBytes != landed || st.Unsided != 0 || st.LinkReceived > moved/50 ||
			st.ReceivedPackets != 0 || wrote > 0 && st.Writes == 0 {
			p.Errorf("member %d: want %d bytes written and %d landed: %+v", i, wrote, landed, st)
		}
		p.Logf("MEASURED: member %d wrote %d bytes in %d writes, %d bytes were written here, %d came by TCP", i,
			st.WrittenBytes, st.Writes, st.LandedBytes, st.LinkReceived)
	}
	for i, m := range groups[tcp] {
		if st := m.store.Stats(); st.Writes != 0 || st.LandedBytes != 0 || !p.left && st.LinkReceived < bytes[tcp] {
			p.Errorf("member %d of the other group: %+v", i, st)
		}
	}
}

// The process that writes dies in the middle, and another holder, on the other machine, takes over.
//
// rows: FUT-04, OOB-42
func TestRDMASourceDies(t *testing.T) {
	p := newMachines(t)
	size := 32 << 20
	if p.lossy {
		size = 8 << 20
	}
	var members []*member
	if p.left {
		members = append(members, p.member(p.system(vsync.WithFastStart()), "objects", nil))
		members = append(members, p.member(p.system(), "objects", nil))
		p.meet("two on the left")
	} else {
		p.meet("two on the left")
		members = append(members, p.member(p.system(), "objects", nil))
		members = append(members, p.member(p.system(), "objects", nil))
	}
	for _, m := range members {
		if err := m.store.AwaitMembers(p.context(), 4); err != nil {
			t.Fatal(err)
		}
	}
	p.meet("four members")
	everybody := members[0].store.Everybody() // in the view's order
	if p.left {
		p.publish(members[1], "f", size)
		if err := members[1].store.Replicate("f", everybody[1:3]).Wait(p.context()); err != nil {
			t.Fatal(err)
		}
		members[0].store.Replicate("f", everybody)
		for ctx := p.context(); members[0].store.Stats().LandedBytes < uint64(size)/2; {
			select {
			case <-time.After(time.Millisecond):
			case <-ctx.Done():
				t.Fatalf("it does not come: %+v", members[0].store.Stats())
			}
		}
		members[1].sys.Kill()
		if n := members[0].store.Stats().LandedBytes; n >= uint64(size) {
			t.Errorf("all %d bytes had come before the kill", n)
		}
		p.check(members[0], "f", size)
	} else {
		p.check(members[1], "f", size)
	}
	p.meet("all have it")
	i, ctx := 0, p.context()
	if !p.left {
		i = 1
	}
	_, err := members[i].store.Await(ctx, func(l []Info) bool { return len(l) == 1 && len(l[0].Holders) == 3 })
	if err != nil {
		t.Errorf("%v: %+v", err, members[i].store.List())
	}
	for i, m := range members {
		st := m.store.Stats()
		// With losses the first writer's end may make the receiver do without writes: then bytes come by TCP.
		if !p.left && i == 0 && st.WrittenBytes == 0 && !p.lossy {
			t.Error("the other holder wrote nothing")
		}
		t.Logf("MEASURED: member %d wrote %d bytes, %d bytes were written here, %d came by TCP", i, st.WrittenBytes,
			st.LandedBytes, st.LinkReceived)
	}
	p.meet("done")
}
