package baseline

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"testing"
	"time"

	other "github.com/asavie/xdp"

	"github.com/khamsin-io/khamsin/bpf"
	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/internal/netns"
	"github.com/khamsin-io/khamsin/transports/xdp"
)

const (
	prefix    = "kxdp-bl"
	groupPort = 7400
	patience  = 10 * time.Second
	channel   = dataplane.Channel(9)
)

// theirs is a socket of the other implementation on a host.
type theirs struct {
	program *other.Program
	socket  *other.Socket
	mac     net.HardwareAddr
	ifIndex int
}

func openTheirs(tb testing.TB, h *netns.Host) *theirs {
	tb.Helper()
	t := new(theirs)
	var err error
	h.Do(func() {
		var ifi *net.Interface
		if ifi, err = net.InterfaceByName(netns.Interface); err != nil {
			return
		}
		t.mac, t.ifIndex = ifi.HardwareAddr, ifi.Index
		if t.program, err = other.NewProgram(1); err != nil {
			return
		}
		if err = t.program.Attach(t.ifIndex); err != nil {
			return
		}
		t.socket, err = other.NewSocket(t.ifIndex, 0, &other.SocketOptions{
			NumFrames: 2048, FrameSize: 2048, FillRingNumDescs: 1024, CompletionRingNumDescs: 1024,
			RxRingNumDescs: 1024, TxRingNumDescs: 1024,
		})
		if err == nil {
			err = t.program.Register(0, t.socket.FD())
		}
	})
	if err != nil {
		tb.Fatal(err)
	}
	t.socket.Fill(t.socket.GetDescs(t.socket.NumFreeFillSlots()))
	tb.Cleanup(func() {
		h.Do(func() { err = t.program.Detach(t.ifIndex) })
		if err != nil {
			tb.Error(err)
		}
		if err := t.socket.Close(); err != nil {
			tb.Error(err)
		}
	})
	return t
}

// receive hands every frame that comes to fn, until that returns false or patience ends.
func (t *theirs) receive(tb testing.TB, fn func(frame []byte) bool) {
	tb.Helper()
	for deadline := time.Now().Add(patience); ; {
		if n := t.socket.NumFreeFillSlots(); n > 0 {
			t.socket.Fill(t.socket.GetDescs(n))
		}
		n, _, err := t.socket.Poll(100)
		if err != nil {
			tb.Fatal(err)
		}
		for _, d := range t.socket.Receive(n) {
			if !fn(t.socket.GetFrame(d)) {
				return
			}
		}
		if time.Now().After(deadline) {
			tb.Fatal("waited in vain for frames")
		}
	}
}

// payloadOf returns the payload of a UDP datagram to the group port.
func payloadOf(frame []byte) (payload []byte, ok bool) {
	if len(frame) < 42 || binary.BigEndian.Uint16(frame[12:]) != 0x0800 || frame[23] != 17 ||
		binary.BigEndian.Uint16(frame[36:]) != groupPort {
		return nil, false
	}
	size := int(binary.BigEndian.Uint16(frame[38:])) - 8
	return frame[42 : 42+size], true
}

func openOurs(tb testing.TB, h *netns.Host) (t *xdp.Transport) {
	tb.Helper()
	var err error
	h.Do(func() {
		t, err = xdp.Open(xdp.Config{Interface: netns.Interface, GroupPort: groupPort, Exclusive: true})
	})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := t.Close(); err != nil {
			tb.Error(err)
		}
	})
	if err := t.Subscribe(channel); err != nil {
		tb.Fatal(err)
	}
	return t
}

// send sends a payload on the channel.
func send(tb testing.TB, t *xdp.Transport, payload []byte) {
	tb.Helper()
	f, ok := t.Arena().Tx().Get()
	if !ok {
		tb.Fatal("no frame")
	}
	f.Len = uint32(len(payload))
	copy(t.Arena().Bytes(f), payload)
	if n, err := t.Send([]dataplane.Packet{{Frame: f, Channel: channel}}); n != 1 || err != nil {
		tb.Fatal(n, err)
	}
}

// receive returns the next payload.
func receive(tb testing.TB, t *xdp.Transport) []byte {
	tb.Helper()
	var batch [1]dataplane.Packet
	if n, err := t.Receive(batch[:], dataplane.Wait{Timeout: patience}); n != 1 || err != nil {
		tb.Fatalf("Receive: %d, %v", n, err)
	}
	defer t.Arena().Rx().Release(batch[0].Frame)
	return bytes.Clone(t.Arena().Bytes(batch[0].Frame))
}

// payloads are random ones of all sizes, numbered.
func payloads() [][]byte {
	rnd := rand.New(rand.NewPCG(5, 6))
	var all [][]byte
	for i := range 200 {
		b := make([]byte, 8+rnd.IntN(1472-8+1))
		for k := range b {
			b[k] = byte(rnd.Uint32())
		}
		binary.BigEndian.PutUint64(b, uint64(i))
		all = append(all, b)
	}
	return all
}

// What our transport sends, another of ours and the other implementation receive alike, and what the other
// implementation sends, ours receives.
func TestDifferential(t *testing.T) {
	netns.Require(t, "xdp", bpf.ProbeDemux())
	hosts := netns.Bridged(t, prefix, 3, netns.Options{})
	from, ours, theirs := openOurs(t, hosts[0]), openOurs(t, hosts[1]), openTheirs(t, hosts[2])
	for i, want := range payloads() {
		send(t, from, want)
		if got := receive(t, ours); !bytes.Equal(got, want) {
			t.Fatalf("ours receives packet %d as %d bytes, want %d", i, len(got), len(want))
		}
		theirs.receive(t, func(frame []byte) bool {
			got, ok := payloadOf(frame)
			if ok && !bytes.Equal(got, want) {
				t.Fatalf("theirs receives packet %d as %d bytes, want %d", i, len(got), len(want))
			}
			return !ok
		})
	}
	if sent, _, _ := from.Bypass(); sent != uint64(len(payloads())) {
		t.Errorf("%d packets left past the stack", sent)
	}
	for i, want := range payloads() {
		d := theirs.socket.GetDescs(1)
		frame := theirs.socket.GetFrame(d[0])
		d[0].Len = uint32(copy(frame, datagram(theirs.mac, want)))
		if n := theirs.socket.Transmit(d); n != 1 {
			t.Fatalf("Transmit: %d", n)
		}
		if _, _, err := theirs.socket.Poll(1000); err != nil {
			t.Fatal(err)
		}
		if got := receive(t, ours); !bytes.Equal(got, want) {
			t.Fatalf("ours receives their packet %d as %d bytes, want %d", i, len(got), len(want))
		}
	}
}

// datagram returns a frame to the channel from 10.99.0.3.
func datagram(from net.HardwareAddr, payload []byte) []byte {
	to := channel.IPv4().As4()
	f := append([]byte{0x01, 0, 0x5e, to[1] & 0x7f, to[2], to[3]}, from...)
	f = append(f, 0x08, 0x00, 0x45, 0)
	f = binary.BigEndian.AppendUint16(f, uint16(28+len(payload)))
	f = append(f, 0, 0, 0, 0, 1, 17, 0, 0, 10, 99, 0, 3)
	f = append(f, to[:]...)
	var sum uint32
	for i := 14; i < 34; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(f[i:]))
	}
	sum = sum>>16 + sum&0xffff
	binary.BigEndian.PutUint16(f[24:], ^uint16(sum>>16+sum))
	f = binary.BigEndian.AppendUint16(f, 7000)
	f = binary.BigEndian.AppendUint16(f, groupPort)
	f = binary.BigEndian.AppendUint16(f, uint16(8+len(payload)))
	return append(append(f, 0, 0), payload...)
}

// BenchmarkReceive counts what each implementation receives, spinning, of what our transport sends.
func BenchmarkReceive(b *testing.B) {
	netns.Require(b, "xdp", bpf.ProbeDemux())
	for _, size := range []int{64, 1400} {
		b.Run(fmt.Sprintf("%d/ours", size), func(b *testing.B) {
			hosts := netns.Pair(b, prefix, netns.Options{})
			from, to := openOurs(b, hosts[0]), openOurs(b, hosts[1])
			batch := make([]dataplane.Packet, 256)
			benchmark(b, from, size, func() int {
				n, err := to.Receive(batch, dataplane.Wait{})
				if err != nil {
					b.Error(err)
				}
				for _, p := range batch[:n] {
					to.Arena().Rx().Release(p.Frame)
				}
				return n
			})
		})
		b.Run(fmt.Sprintf("%d/theirs", size), func(b *testing.B) {
			hosts := netns.Pair(b, prefix, netns.Options{})
			from, to := openOurs(b, hosts[0]), openTheirs(b, hosts[1])
			benchmark(b, from, size, func() int {
				if n := to.socket.NumFreeFillSlots(); n > 0 {
					to.socket.Fill(to.socket.GetDescs(n))
				}
				n := 0
				for _, d := range to.socket.Receive(to.socket.NumReceived()) {
					if _, ok := payloadOf(to.socket.GetFrame(d)); ok {
						n++
					}
				}
				return n
			})
		})
	}
}

// benchmark sends for a fixed time while poll receives on another goroutine.
func benchmark(b *testing.B, from *xdp.Transport, size int, poll func() int) {
	stop, done := make(chan struct{}), make(chan int)
	go func() {
		n := 0
		for {
			select {
			case <-stop:
				done <- n
				return
			default:
				n += poll()
			}
		}
	}()
	sent := 0
	batch := make([]dataplane.Packet, 64)
	start := time.Now()
	for time.Since(start) < 400*time.Millisecond {
		for i := range batch {
			f, _ := from.Arena().Tx().Get()
			f.Len = uint32(size)
			batch[i] = dataplane.Packet{Frame: f, Channel: channel}
		}
		for rest := batch; len(rest) > 0; {
			n, err := from.Send(rest)
			if err != nil {
				b.Fatal(err)
			}
			rest = rest[n:]
		}
		sent += len(batch)
	}
	took := time.Since(start)
	close(stop)
	got := <-done
	b.ReportMetric(float64(got)/took.Seconds()/1e3, "kpps")
	b.ReportMetric(100-100*float64(got)/float64(max(1, sent)), "%lost")
	b.ReportMetric(0, "ns/op")
}
