package perf

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	other "github.com/asavie/xdp"
	"golang.org/x/sys/unix"

	"github.com/khamsin-io/khamsin/bpf"
	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/transports/udp"
	"github.com/khamsin-io/khamsin/transports/xdp"
)

// The channel and port of the comparison, and how many packets move at once.
const (
	wayChannel = dataplane.Channel(9)
	wayPort    = 21991
	wayBatch   = 64
)

// taker is a receiver of one way.
type taker interface {
	// take polls once and returns how many payloads of a size came.
	take(size int) (int, error)
	io.Closer
}

// openWay opens the receiver of a way on an interface.
func openWay(way, ifName string) (taker, error) {
	var t transportTaker
	var err error
	switch way {
	case wayXDP:
		t.Transport, err = xdp.Open(xdp.Config{Interface: ifName, GroupPort: wayPort, Exclusive: true})
	case wayUDP:
		t.Transport, err = udp.Open(udp.Config{Interface: ifName, GroupPort: wayPort, DisableGRO: true})
	case wayOther:
		return openOther(ifName)
	default:
		return nil, fmt.Errorf("floor: no way %q", way)
	}
	if err != nil {
		return nil, err
	}
	if err = t.Subscribe(wayChannel); err != nil {
		return nil, errors.Join(err, t.Close())
	}
	return &t, nil
}

// transportTaker receives by one of our transports.
type transportTaker struct {
	dataplane.Transport
	batch [wayBatch]dataplane.Packet
}

func (t *transportTaker) take(size int) (int, error) {
	n, err := t.Receive(t.batch[:], dataplane.Wait{})
	count := 0
	for _, p := range t.batch[:n] {
		if int(p.Frame.Len) == size {
			count++
		}
		t.Arena().Release(p.Frame)
	}
	return count, err
}

// otherTaker receives by the other implementation.
type otherTaker struct {
	program *other.Program
	socket  *other.Socket
}

// Sizes of the other implementation's rings and of its memory.
const (
	otherRing   = 1024
	otherFrames = 2048
)

func openOther(ifName string) (taker, error) {
	ifi, err := net.InterfaceByName(ifName)
	if err != nil {
		return nil, err
	}
	t := &otherTaker{}
	if t.program, err = other.NewProgram(1); err != nil {
		return nil, err
	}
	if err := t.program.Attach(ifi.Index); err != nil {
		return nil, err
	}
	t.socket, err = other.NewSocket(ifi.Index, 0, &other.SocketOptions{
		NumFrames: otherFrames, FrameSize: otherFrames, FillRingNumDescs: otherRing, CompletionRingNumDescs: otherRing,
		RxRingNumDescs: otherRing, TxRingNumDescs: otherRing,
	})
	if err != nil {
		return nil, err
	}
	if err := t.program.Register(0, t.socket.FD()); err != nil {
		return nil, errors.Join(err, t.socket.Close())
	}
	// Its program hands everything to its socket; the join alone brings multicasts through a bridge.
	return t, nil
}

func (t *otherTaker) take(size int) (int, error) {
	if n := t.socket.NumFreeFillSlots(); n > 0 {
		t.socket.Fill(t.socket.GetDescs(n))
	}
	n, _, err := t.socket.Poll(0)
	if err != nil || n == 0 {
		return 0, err
	}
	const headers = 14 + 20 + 8
	count := 0
	for _, d := range t.socket.Receive(n) {
		if int(d.Len) == headers+size {
			count++
		}
	}
	return count, nil
}

// Close closes the socket. The program stays until the interface goes, which it does with the process's namespace.
func (t *otherTaker) Close() error { return t.socket.Close() }

// missing returns why a way is not to be had, as text, or the error.
func missing(err error) (*floorReport, error) {
	var m *bpf.MissingError
	if errors.As(err, &m) {
		return &floorReport{Missing: err.Error()}, nil
	}
	return nil, err
}

// doWay carries out a step of the comparison.
func (f *floorServer) doWay(ctx context.Context, o *floorOrder) (*floorReport, error) {
	if o.Blast > 0 {
		return blastXDP(ctx, o)
	}
	t, err := openWay(o.Way, o.Interface)
	if err != nil {
		return missing(err)
	}
	return &floorReport{}, f.run(t.Close, func() {
		for last := threadTime(); f.running.Load(); {
			n, err := t.take(o.Sink)
			if err != nil {
				f.err = err
				return
			}
			now := threadTime()
			if n > 0 { // the time of what was polled in vain is nobody's
				f.count += uint64(n)
				f.processor += now - last
			}
			last = now
		}
	})
}

// threadTime returns the processor time that the calling thread has had.
func threadTime() time.Duration {
	var t unix.Timespec
	if unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t) != nil {
		return 0
	}
	return time.Duration(t.Nano())
}

// blastXDP multicasts by our AF_XDP transport as fast as it takes packets.
func blastXDP(ctx context.Context, o *floorOrder) (*floorReport, error) {
	t, err := xdp.Open(xdp.Config{Interface: o.Interface, GroupPort: wayPort, Exclusive: true})
	if err != nil {
		return missing(err)
	}
	r := &floorReport{}
	var batch [wayBatch]dataplane.Packet
	began := time.Now()
	for err == nil && time.Since(began) < floorPhase && ctx.Err() == nil {
		n := 0
		for ; n < len(batch); n++ {
			f, ok := t.Arena().Tx().Get()
			if !ok {
				break
			}
			f.Len = uint32(o.Blast)
			batch[n] = dataplane.Packet{Frame: f, Channel: wayChannel}
		}
		sent := 0
		sent, err = t.Send(batch[:n])
		for _, p := range batch[sent:n] {
			t.Arena().Tx().Release(p.Frame)
		}
		r.Count += uint64(sent)
	}
	r.Seconds = time.Since(began).Seconds()
	return r, errors.Join(err, t.Close())
}
