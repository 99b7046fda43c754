package link

import (
	"bytes"
	"testing"
	"time"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/clock"
	"github.com/khamsin-io/khamsin/dataplane/frame"
	"github.com/khamsin-io/khamsin/dataplane/wire"
	"github.com/khamsin-io/khamsin/vsync/core"
	"github.com/khamsin-io/khamsin/vsync/internal/pdu"
)

// station is the lanes of one process, and what they handed up.
type station struct {
	addr  core.Address
	arena *frame.Arena
	out   *pdu.Outbox
	links *Links
	got   [][]byte
}

func (s *station) OnSilent(clock.Time, uint64) {}

func (s *station) OnMessage(_ clock.Time, m Message) bool {
	s.got = append(s.got, m.Data)
	return true
}

func newStation(t *testing.T, number, frames int) *station {
	t.Helper()
	arena, err := frame.New(frame.Config{ChunkSize: 2048, TxChunks: frames, RxRuns: 64, RunChunks: 1})
	if err != nil {
		t.Fatal(err)
	}
	s := &station{arena: arena, out: pdu.NewOutbox(arena, 1472)}
	s.addr = core.Address{PID: uint32(number), Port: uint16(number), Incarnation: uint64(number)}
	cfg := Config{Incarnation: s.addr.Incarnation, Retry: 20 * time.Millisecond, Ack: time.Millisecond}
	s.links = New(cfg, s.out, s)
	t.Cleanup(func() {
		s.links.Release()
		if n := arena.Outstanding(); n > 0 {
			t.Errorf("station %d keeps %d frames", number, n)
		}
		_ = arena.Close()
	})
	return s
}

// carry takes what a station sent to where it goes, and gives the frames back.
func (s *station) carry(now clock.Time, all []*station) {
	list := s.out.Packets
	s.out.Packets = nil
	for _, p := range list {
		for _, to := range all {
			if to.addr.Endpoint() != p.To {
				continue
			}
			f, ok := to.arena.Rx().Get()
			if !ok {
				break
			}
			b := s.arena.Bytes(p.Frame)
			f.Len = uint32(copy(to.arena.Bytes(frame.Frame{Chunk: f.Chunk, Off: f.Off, Len: uint32(len(b))}), b))
			to.receive(now, f, s.addr.Endpoint())
		}
		s.arena.Tx().Release(p.Frame)
	}
}

func (s *station) receive(now clock.Time, f frame.Frame, from dataplane.Endpoint) {
	var h wire.Header
	if h.Decode(s.arena.Bytes(f)) != nil {
		s.arena.Release(f)
		return
	}
	if h.Kind == wire.KindLinkAck {
		s.links.OnAck(now, &h)
		s.arena.Release(f)
		return
	}
	s.links.OnPacket(now, &h, f, from)
}

// A process that has messages for many others and few frames sends on as soon as frames come back: no lane waits for
// the time of its retransmission only because it found no frame.
func TestLanesWithoutFramesTakeTurns(t *testing.T) {
	const others, packets = 20, 4
	sender := newStation(t, 1, 24)
	all := []*station{sender}
	msg := bytes.Repeat([]byte{7}, packets*sender.out.Room())
	for i := range others {
		all = append(all, newStation(t, i+2, 64))
		sender.links.Send(0, all[i+1].addr, Control, 0, msg)
	}
	if sender.out.Starved == 0 {
		t.Fatal("there are frames for all")
	}
	now := clock.Time(0)
	for ; now < clock.Time(15*time.Millisecond); now += clock.Time(100 * time.Microsecond) {
		for _, s := range all {
			if s.links.Deadline() <= now {
				s.links.Tick(now)
			}
			s.carry(now, all)
		}
	}
	for _, s := range all[1:] {
		if len(s.got) != 1 || !bytes.Equal(s.got[0], msg) {
			t.Errorf("%v was given %d messages before the first retransmission", s.addr, len(s.got))
		}
	}
	if n := sender.links.Count.Resent; n > 0 {
		t.Errorf("%d packets were sent again, and none was lost", n)
	}
}
