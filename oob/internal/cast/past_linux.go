package cast

import (
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/oob/internal/transfer"
)

// Packets that go past the stack are the same as those by UDP, and carry the port of the sender's socket: what answers
// them, and what goes to one receiver alone, takes the sockets. So does everything when something goes wrong.

const (
	pastBatch    = 64 // packets that are taken at once
	socketsEvery = 64 // turns after which the sockets are read though packets come past the stack
	putTries     = 8  // calls that may bring no room for a packet, before it counts as lost
)

// flow returns the packets of a path, with room for a head and a seal.
func (p *Path) flow(unit int) dataplane.Flow {
	return dataplane.Flow{To: netip.AddrPortFrom(p.Group, p.Port), TTL: p.TTL, Size: transfer.HeadLen + unit + TagLen}
}

// usable tells whether packets of a path shall go past the stack: those for processes of this host do not.
func (p *Past) usable(path *Path) bool { return p.Bypass != nil && !path.Loop && path.TTL > 0 }

// trouble counts that packets do not go past the stack, and says why.
func (p *Past) trouble(c *Counters, what string, err error) {
	c.PastRefused.Add(1)
	if p.Trouble != nil {
		p.Trouble(fmt.Errorf("%s: %w", what, err))
	}
}

// openPast opens the outlet, if there shall be one.
func (w *sendWork) openPast() {
	if !w.Past.usable(&w.Path) {
		return
	}
	f := w.Path.flow(w.Layout.Unit())
	f.From = w.socket.port()
	out, err := w.Past.Bypass.OpenOutlet(f)
	if err != nil {
		w.Past.trouble(w.Counters, "send past the stack", err)
		return
	}
	w.past = out
}

func (w *sendWork) closePast() {
	if w.past != nil {
		_ = w.past.Close() // what could be lost is repaired
		w.past = nil
	}
}

// transmitPast puts the packets of a burst into the outlet. Slot i of the tables is free.
func (w *sendWork) transmitPast(b *transfer.Burst, i, packets int, rows [][]byte) {
	bytes, sent := 0, 0
	for k := range packets {
		h, payload := w.content(b, k, rows)
		head, text := w.parts(i, &h, payload)
		if !w.putPast(head, text) {
			continue // like any loss
		}
		bytes += len(head) + len(text)
		sent++
	}
	w.Counters.SentPackets.Add(uint64(sent))
	w.Counters.SentBytes.Add(uint64(bytes))
	w.Counters.PastSent.Add(uint64(sent))
}

// putPast puts one packet into the outlet, and returns false when it is lost.
func (w *sendWork) putPast(head, payload []byte) bool {
	for range putTries {
		if w.past == nil {
			return false
		}
		if w.past.Put(head, payload) {
			return true
		}
		w.flushPast()
	}
	return false
}

// flushPast sends what the outlet has. When that fails the sockets go on.
func (w *sendWork) flushPast() bool {
	if w.past == nil {
		return false
	}
	err := w.past.Flush()
	if err != nil {
		w.closePast()
		w.Past.trouble(w.Counters, "send past the stack", err)
	}
	return err == nil
}

// pastIn is what a receiving needs for packets that come past the stack.
type pastIn struct {
	inlet dataplane.Inlet
	batch [pastBatch]dataplane.Datagram
	polls []unix.PollFd // the group's socket, its own, the stop file, those of the inlet
	turns int           // since the sockets were read
}

// hear lets packets come to the group's socket, when no inlet takes them.
func (w *receiveWork) hear() error {
	if w.Past.Hear == nil || w.heard != nil {
		return nil
	}
	var err error
	w.heard, err = w.Past.Hear(netip.AddrPortFrom(w.Path.Group, w.Path.Port))
	return err
}

// openPast opens the inlet, if there shall be one. The group is joined.
func (w *receiveWork) openPast() {
	if !w.Past.usable(&w.Path) {
		return
	}
	in, err := w.Past.Bypass.OpenInlet(w.Path.flow(w.unit))
	if err != nil {
		w.Past.trouble(w.Counters, "receive past the stack", err)
		return
	}
	w.past = &pastIn{inlet: in}
	for _, fd := range append([]int32{int32(w.group.fd), int32(w.own.fd), int32(w.stop.fd)}, in.Files()...) {
		w.past.polls = append(w.past.polls, unix.PollFd{Fd: fd, Events: unix.POLLIN})
	}
}

// closePast closes the inlet.
func (w *receiveWork) closePast() {
	if w.past != nil {
		_ = w.past.inlet.Close() // nothing depends on it any more
		w.past = nil
	}
}

// endPast closes everything.
func (w *receiveWork) endPast() {
	w.closePast()
	if w.heard != nil {
		_ = w.heard.Close() // likewise
	}
}

// turn receives once, and returns how many messages came.
func (w *receiveWork) turn() (int, error) {
	if w.past != nil {
		return w.turnPast()
	}
	n, err := w.pull(w.group)
	if n > 0 || err != nil {
		return n, err
	}
	return w.pull(w.own)
}

// wait waits until something can be received, but not for long.
func (w *receiveWork) wait() {
	if w.past != nil {
		w.past.wait()
		return
	}
	w.stop.await(waitMax, unix.POLLIN, w.group, w.own)
}

// wait waits until something can be received, and notes which socket has it.
func (p *pastIn) wait() {
	if _, err := unix.Poll(p.polls, int(waitMax/time.Millisecond)); err != nil {
		p.polls[0].Revents, p.polls[1].Revents = unix.POLLIN, unix.POLLIN
	}
}

// turnPast receives once from the inlet, and from the sockets when they have something, or have not been asked for
// long.
func (w *receiveWork) turnPast() (int, error) {
	p := w.past
	n, err := p.inlet.Receive(p.batch[:])
	if err != nil {
		w.closePast()
		w.Past.trouble(w.Counters, "receive past the stack", err)
		return 0, w.hear()
	}
	if n > 0 {
		err := w.takePast(p.batch[:n])
		p.inlet.Release()
		if err != nil {
			return n, err
		}
	}
	p.turns++
	for i, s := range []*socket{w.group, w.own} {
		if p.polls[i].Revents == 0 && p.turns < socketsEvery {
			continue
		}
		m, err := w.pull(s)
		if err != nil {
			return n, err
		}
		if n += m; m == 0 {
			p.polls[i].Revents = 0
		}
	}
	if p.turns >= socketsEvery {
		p.turns = 0
	}
	return n, nil
}

// takePast takes packets that came past the stack: from there they are copied, or opened, to where they belong.
func (w *receiveWork) takePast(batch []dataplane.Datagram) error {
	w.moves, w.blocks, w.stash = w.moves[:0], w.blocks[:0], w.stash[:0]
	for i := range batch {
		d := &batch[i]
		// A super-packet that no driver has cut comes as a whole.
		for b := d.Payload; len(b) > 0; {
			size := min(len(b), transfer.HeadLen+w.room)
			if size < transfer.HeadLen {
				w.Counters.Malformed.Add(1)
				break
			}
			if h, ok := w.admit(b[:size], d.From); ok {
				w.moves = append(w.moves, move{h, b[transfer.HeadLen:size], d.From})
				w.Counters.PastReceived.Add(1)
			}
			b = b[size:]
		}
	}
	if err := w.settle(); err != nil {
		return err
	}
	w.expect = w.Receiver.Next(w.expect)
	w.Segments.Store(w.Receiver.Layout().Total() - w.Receiver.Missing())
	return nil
}
