package vsync

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/wire"
)

// recorder is a transport that keeps some of the packets that it sends.
type recorder struct {
	dataplane.Transport
	mu   sync.Mutex
	kept [][]byte
}

const recorded = 4000

func (r *recorder) Send(batch []dataplane.Packet) (int, error) {
	r.mu.Lock()
	for _, p := range batch {
		if len(r.kept) < recorded {
			r.kept = append(r.kept, bytes.Clone(r.Arena().Bytes(p.Frame)))
		}
	}
	r.mu.Unlock()
	return r.Transport.Send(batch)
}

// packets returns what was kept so far.
func (r *recorder) packets() [][]byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.kept
}

// attacker makes packets from those that it has overheard.
type attacker struct {
	rng   *rand.Rand
	heard [][]byte
	buf   []byte
}

// attacks is how many kinds of packets there are.
const attacks = 7

// next returns a packet of a kind, valid until the next call.
func (a *attacker) next(kind int) []byte {
	a.buf = append(a.buf[:0], a.heard[a.rng.IntN(len(a.heard))]...)
	switch kind {
	case 0: // random bytes
		a.buf = a.buf[:a.rng.IntN(len(a.buf)+1)]
		a.scribble(0)
	case 1: // random bytes behind a header
		a.scribble(wire.HeaderLen)
	case 2: // cut off
		a.buf = a.buf[:a.rng.IntN(len(a.buf))]
	case 3: // flipped bits
		for range 1 + a.rng.IntN(8) {
			i := a.rng.IntN(len(a.buf))
			a.buf[i] ^= 1 << a.rng.IntN(8)
		}
	case 4: // as it was
	case 5: // changed, with a checksum that is right
		i := a.rng.IntN(len(a.buf))
		a.buf[i] = byte(a.rng.Uint32())
		a.seal()
	case 6: // made up, with a checksum that is right and without a tag
		h := wire.Header{
			Kind: wire.Kind(1 + a.rng.IntN(10)), Flags: uint8(a.rng.Uint32()), System: a.rng.Uint32(),
			Group: a.rng.Uint32(), View: a.rng.Uint64(), Seq: a.rng.Uint64(), Rank: a.rng.Uint32(), Aux: a.rng.Uint32(),
		}
		var was wire.Header
		if was.Peek(a.buf) == nil && a.rng.IntN(2) == 0 {
			h.System, h.Group, h.View, h.Rank = was.System, was.Group, was.View, was.Rank
		}
		if len(a.buf) >= wire.HeaderLen {
			h.Encode(a.buf)
			a.seal()
		}
	}
	return a.buf
}

func (a *attacker) scribble(from int) {
	for i := from; i < len(a.buf); i++ {
		a.buf[i] = byte(a.rng.Uint32())
	}
}

func (a *attacker) seal() {
	if len(a.buf) >= wire.HeaderLen {
		wire.Seal(a.buf)
	}
}

// Hostile packets are thrown at live processes of a system with a key: random, cut off, flipped, replayed, forged.
// Nothing crashes, nothing of it is delivered, members go on talking to each other, memory stays where it is, and each
// kind is counted. KHAMSIN_HOSTILE says how many packets; make hostile throws ten millions.
//
// rows: SEC-11, SEC-16, SEC-19, SEC-20
func TestHostile(t *testing.T) {
	count := 60_000
	if testing.Short() {
		count = 20_000
	}
	if text := os.Getenv("KHAMSIN_HOSTILE"); text != "" {
		var err error
		if count, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	var tap recorder
	members := victims(t, &tap)
	const chatter = 300
	for n := range uint64(chatter) { // what the attacker overhears
		members[0].send(t, Ordered, n)
	}
	for _, m := range members {
		m.untilCount(t, chatter)
	}
	var before runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	throw(t, count, tap.packets(), func(sent int) { members[1].send(t, Ordered, uint64(chatter+sent)) })
	for _, m := range members {
		m.untilCount(t, chatter+talks)
		for i, n := range m.state {
			if n != uint64(i) {
				t.Fatalf("number %d in the state is %d", i, n)
			}
		}
		if v := m.group.View(); v.Size() != 3 || v.ID > 3 {
			t.Errorf("view %d has %d members, want the third with all", v.ID, v.Size())
		}
	}
	var after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapInuse) - int64(before.HeapInuse); grown > 32<<20 {
		t.Errorf("the heap has grown by %d bytes", grown)
	}
	var sum IOStats
	for i, m := range members {
		r := m.sys.IOStats().Refused
		sum.Refused.BadChecksum += r.BadChecksum
		sum.Refused.Forged += r.Forged
		sum.Refused.Unsigned += r.Unsigned
		sum.Refused.Replayed += r.Replayed
		sum.Refused.Malformed += r.Malformed
		sum.Refused.Foreign += r.Foreign
		if open := m.sys.State().OpenFrames; open > 1000 {
			t.Errorf("process %d holds %d frames", i, open)
		}
	}
	r := sum.Refused
	if r.BadChecksum == 0 || r.Forged == 0 || r.Unsigned == 0 || r.Replayed == 0 || r.Foreign == 0 ||
		r.Malformed == 0 {
		t.Errorf("not every kind is counted: %+v", r)
	}
	t.Logf("of %d packets thrown: %+v", count, r)
}

// Ports of the victims: of their multicasts, and of the first one's own.
const (
	victimGroupPort = 20950
	victimPort      = 20960
	victimCount     = 3
)

// victims starts systems on the loopback, each with a member, of which one is overheard.
func victims(t *testing.T, tap *recorder) (members []*member) {
	t.Helper()
	for i := range victimCount {
		factory := UDP()
		if i == 0 {
			factory = func(c *Config) (dataplane.Transport, error) {
				tr, err := UDP()(c)
				tap.Transport = tr
				return tap, err
			}
		}
		s, err := Start(t.Context(), WithTransport(factory), WithPorts(victimGroupPort, victimPort),
			WithSystemKey(keyNamed(4)), WithSystemName(fmt.Sprint(t.Name(), os.Getpid())), WithMute(),
			WithSuspectAfter(patience))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		members = append(members, joined(t, s, "victims"))
	}
	members[0].untilSize(t, victimCount)
	return members
}

// targets are the sockets of the victims.
func targets() (list []netip.AddrPort) {
	for i := range uint16(victimCount) {
		list = append(list, netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), victimPort+i))
	}
	for i := range dataplane.Channel(2) {
		list = append(list, netip.AddrPortFrom((defaultChannelLow+i).IPv4(), victimGroupPort))
	}
	return list
}

// talks is how often a member speaks during the attack.
const talks = 20

// throw sends packets, a little slower than the victims can read, and calls talk now and then.
func throw(t *testing.T, count int, heard [][]byte, talk func(n int)) {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ifi, err := net.InterfaceByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	if err := multicastBy(c, ifi.Index); err != nil {
		t.Fatal(err)
	}
	a := attacker{rng: rand.New(rand.NewPCG(1, 2)), heard: heard}
	said, to := 0, targets()
	for i := range count {
		if _, err := c.WriteToUDPAddrPort(a.next(i%attacks), to[a.rng.IntN(len(to))]); err != nil {
			t.Fatalf("packet %d: %v", i, err)
		}
		if i%64 == 63 {
			time.Sleep(200 * time.Microsecond) // the pace of the attack, not a wait for something
		}
		if (i+1)%max(1, count/talks) == 0 && said < talks {
			talk(said)
			said++
		}
	}
	for ; said < talks; said++ {
		talk(said)
	}
}

// multicastBy makes a socket multicast by an interface, to this host only.
func multicastBy(c *net.UDPConn, ifIndex int) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) { failed = multicastOn(int(fd), ifIndex) })
	if err != nil {
		return err
	}
	return failed
}

func multicastOn(fd, ifIndex int) error {
	return errors.Join(
		unix.SetsockoptIPMreqn(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_IF, &unix.IPMreqn{Ifindex: int32(ifIndex)}),
		unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_TTL, 0))
}
