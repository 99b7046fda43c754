package cast

import (
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/oob/internal/transfer"
)

const (
	sendMessages  = 4               // super-packets per system call
	startPatience = 3 * time.Second // to wait for receivers before the first packet
	pollMax       = 50 * time.Millisecond
)

// sendWork is what one sending needs.
type sendWork struct {
	*Sending
	socket  *socket
	past    dataplane.Outlet // nil: multicasts leave by the socket
	group   netip.AddrPort
	stop    *stopFile
	session uint16
	began   time.Time
	sender  *transfer.Sender
	parity  *transfer.Parity
	control cipher.AEAD
	data    cipher.AEAD
	salt    [SaltLen]byte
	nonce   [nonceLen]byte            // of the packet that is sealed
	where   map[uint64]netip.AddrPort // of the receivers, as their feedbacks came

	gso    bool
	burst  int // packets of a super-packet
	stride int // bytes of a packet of a full segment
	msgs   []mmsghdr
	iovs   []unix.Iovec
	heads  []byte // one for each packet
	sealed []byte // likewise, with a cipher
	ctls   [][controlLen]byte
	names  []name
	bursts []transfer.Burst
	hint   int
	input  [2048]byte
	fb     transfer.Feedback
}

// controlLen has room for the size of a super-packet's segments.
const controlLen = 24 // CmsgSpace(2)

// Run sends until no receiver lacks anything, or until the sending is stopped.
func (s *Sending) Run() error {
	w := &sendWork{
		Sending: s, group: netip.AddrPortFrom(s.Path.Group, s.Path.Port), began: time.Now(),
		where: make(map[uint64]netip.AddrPort), gso: true,
	}
	var err error
	if w.socket, err = openUnicast(s.Path); err != nil {
		return err
	}
	defer w.socket.close()
	if w.stop, err = openStop(s.Stop); err != nil {
		return err
	}
	defer w.stop.close()
	w.openPast()
	defer w.closePast()
	if _, err := unix.GetsockoptInt(w.socket.fd, unix.SOL_UDP, unix.UDP_SEGMENT); err != nil {
		w.gso = false
	}
	var draw [2]byte
	_, _ = rand.Read(draw[:]) // never fails
	w.session = binary.LittleEndian.Uint16(draw[:])
	w.stride = transfer.HeadLen + s.Layout.Unit()
	if s.Keys != nil {
		_, _ = rand.Read(w.salt[:])
		if w.control, err = s.Keys.Control(); err != nil {
			return err
		}
		if w.data, err = s.Keys.Data(w.salt[:]); err != nil {
			return err
		}
		w.stride += TagLen
	}
	burst := min(segmentsMax, superMax/w.stride)
	var ids []uint64
	for _, r := range s.Receivers {
		ids = append(ids, r.ID)
	}
	w.sender = transfer.NewSender(s.Layout, ids, burst, w.now())
	w.parity = transfer.NewParity(s.Layout, s.Items)
	w.prepare(burst)
	return w.loop()
}

func (w *sendWork) now() int64 { return int64(time.Since(w.began)) + 1 }

// prepare makes the tables that system calls read.
func (w *sendWork) prepare(burst int) {
	w.burst = burst
	packets := sendMessages * max(burst, transfer.ParityMax)
	w.msgs = make([]mmsghdr, packets)
	w.iovs = make([]unix.Iovec, 2*packets)
	w.heads = make([]byte, packets*transfer.HeadLen)
	if w.data != nil {
		w.sealed = make([]byte, packets*(w.stride-transfer.HeadLen))
	}
	w.ctls = make([][controlLen]byte, packets)
	w.names = make([]name, packets)
	w.bursts = make([]transfer.Burst, sendMessages)
}

// loop is the life of a sending.
func (w *sendWork) loop() error {
	defer func() {
		w.Counters.Repaired.Add(w.sender.Repaired)
		w.Counters.Parity.Add(w.sender.Rows)
		w.Counters.Single.Add(w.sender.Single)
	}()
	started := false
	for {
		if stopped(w.Stop) {
			return errStopped
		}
		for _, id := range w.takeGone() {
			w.sender.Gone(id)
		}
		w.drain()
		if w.sender.Done() {
			return nil
		}
		if !started {
			waiting, heard := w.sender.Receivers()
			started = heard == waiting || time.Since(w.began) > startPatience && heard > 0
		}
		n := 0
		for started && n < len(w.bursts) && w.sender.Next(&w.bursts[n], w.now()) {
			n++
		}
		if n > 0 {
			if err := w.transmit(w.bursts[:n]); err != nil {
				return err
			}
			continue
		}
		now := w.now()
		if w.sender.Probe(now) {
			w.probe()
		}
		w.stop.await(min(pollMax, time.Duration(w.sender.Due()-w.now())), unix.POLLIN, w.socket)
	}
}

// probe asks all receivers for feedback.
func (w *sendWork) probe() {
	h := transfer.Head{Type: transfer.TypeProbe, Session: w.session, Transfer: w.ID, Number: w.sender.Last()}
	head := make([]byte, transfer.HeadLen, 128)
	h.Put(head)
	p := transfer.Probe{Total: w.Layout.Total(), Passed: w.sender.Passed(), Unit: uint16(w.Layout.Unit())}
	text := append(p.Append(nil), w.salt[:]...)
	packet := seal(w.control, head, text)
	if w.past == nil || !w.putPast(packet[:transfer.HeadLen], packet[transfer.HeadLen:]) || !w.flushPast() {
		w.socket.sendTo(packet, w.group, w.Path.Interface)
	}
	w.Counters.Probes.Add(1)
}

// drain takes all feedback that is there.
func (w *sendWork) drain() {
	for {
		n, from, err := unix.Recvfrom(w.socket.fd, w.input[:], unix.MSG_DONTWAIT)
		if err == unix.EINTR || err == unix.ECONNREFUSED {
			continue
		}
		if err != nil {
			return
		}
		w.feedback(w.input[:n], from)
	}
}

func (w *sendWork) feedback(b []byte, from unix.Sockaddr) {
	h, ok := transfer.ParseHead(b)
	if !ok || h.Type != transfer.TypeFeedback {
		w.Counters.Malformed.Add(1)
		return
	}
	if h.Transfer != w.ID || h.Session != w.session {
		w.Counters.Stale.Add(1)
		return
	}
	text, ok := open(w.control, b)
	ap := addrPort(from)
	if !ok || !w.fb.Parse(text) || !w.known(w.fb.Receiver, ap.Addr()) || !w.sender.Feedback(&w.fb, w.now()) {
		w.Counters.Malformed.Add(1)
		return
	}
	w.where[w.fb.Receiver] = ap
	w.Counters.Feedbacks.Add(1)
}

func (w *sendWork) known(id uint64, ip netip.Addr) bool {
	for _, r := range w.Receivers {
		if r.ID == id && r.IP == ip {
			return true
		}
	}
	return false
}

func addrPort(sa unix.Sockaddr) netip.AddrPort {
	switch a := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr).Unmap(), uint16(a.Port))
	}
	return netip.AddrPort{}
}

// transmit sends bursts.
func (w *sendWork) transmit(bursts []transfer.Burst) error {
	packets, messages := 0, 0
	for i := range bursts {
		b := &bursts[i]
		to := w.group
		if b.To >= 0 {
			if ap, ok := w.where[w.sender.Receiver(b.To)]; ok {
				to = ap
			}
		}
		n := len(b.Segments)
		var rows [][]byte
		if b.Parity {
			n = b.Rows
			rows = w.parity.Rows(b.Block, b.Row, n)
		}
		if w.past != nil && to == w.group {
			w.transmitPast(b, packets, n, rows)
			continue
		}
		open, inside := false, 0 // the last message can take another packet; how many it has
		for k := range n {
			h, payload := w.content(b, k, rows)
			size := w.packet(packets, &h, payload)
			if !open || !w.gso || inside == w.burst {
				w.message(messages, packets, to)
				messages++
				inside = 0
			}
			inside++
			m := &w.msgs[messages-1].hdr
			m.SetIovlen(int(m.Iovlen) + 2)
			open = size == w.stride
			packets++
		}
		if b.Parity {
			// The rows are the coder's: they must leave before it is used again.
			if err := w.flush(messages, packets); err != nil {
				return err
			}
			messages, packets = 0, 0
		}
	}
	w.flushPast()
	return w.flush(messages, packets)
}

// content returns the head and the payload of packet k of a burst.
func (w *sendWork) content(b *transfer.Burst, k int, rows [][]byte) (h transfer.Head, payload []byte) {
	h = transfer.Head{Session: w.session, Transfer: w.ID, Number: b.Number + uint32(k)}
	if b.Parity {
		h.Type, h.Index = transfer.TypeParity, b.Block<<8|uint32(b.Row+k)
		return h, rows[k]
	}
	p := w.Layout.Locate(b.Segments[k], w.hint)
	w.hint = p.Item
	h.Type, h.Index = transfer.TypeData, b.Segments[k]
	return h, w.Items[p.Item].Bytes(p)
}

// packet makes packet i of a head and a payload, and returns its length.
func (w *sendWork) packet(i int, h *transfer.Head, payload []byte) int {
	head, payload := w.parts(i, h, payload)
	w.iovs[2*i].Base = &head[0]
	w.iovs[2*i].SetLen(len(head))
	w.iovs[2*i+1].Base = unsafe.SliceData(payload)
	w.iovs[2*i+1].SetLen(len(payload))
	return len(head) + len(payload)
}

// parts returns packet i as its head and its payload, which is sealed where there are keys.
func (w *sendWork) parts(i int, h *transfer.Head, payload []byte) (head, text []byte) {
	head = w.heads[i*transfer.HeadLen : (i+1)*transfer.HeadLen : (i+1)*transfer.HeadLen]
	h.Put(head)
	if w.data != nil {
		room := w.stride - transfer.HeadLen
		payload = w.data.Seal(w.sealed[i*room:i*room:(i+1)*room], nonceOf(&w.nonce, h.Number), payload, head)
	}
	return head, payload
}

// message begins message m with packet i.
func (w *sendWork) message(m, i int, to netip.AddrPort) {
	h := &w.msgs[m].hdr
	*h = unix.Msghdr{Name: (*byte)(unsafe.Pointer(&w.names[m])), Iov: &w.iovs[2*i]}
	h.Namelen = w.names[m].set(to, w.Path.Interface)
	if w.gso {
		c := (*unix.Cmsghdr)(unsafe.Pointer(&w.ctls[m]))
		c.Level, c.Type = unix.SOL_UDP, unix.UDP_SEGMENT
		c.SetLen(unix.CmsgLen(2))
		*(*uint16)(unsafe.Pointer(&w.ctls[m][unix.CmsgLen(0)])) = uint16(w.stride)
		h.Control = &w.ctls[m][0]
		h.SetControllen(unix.CmsgSpace(2))
	}
}

// flush sends the messages that are ready.
func (w *sendWork) flush(messages, packets int) error {
	for at := 0; at < messages; {
		n, errno := sendmmsg(w.socket.fd, w.msgs[at:messages])
		switch errno {
		case 0:
			at += n
		case unix.EINTR:
		case unix.EAGAIN, unix.ENOBUFS, unix.ENOMEM:
			w.stop.await(time.Millisecond, unix.POLLOUT, w.socket)
			if stopped(w.Stop) {
				return errStopped
			}
		case unix.EINVAL, unix.EIO:
			if !w.gso {
				return fmt.Errorf("send to %v: %w", w.group, errno)
			}
			w.gso = false
			return nil // what is lost is repaired, without super-packets
		case unix.ECONNREFUSED, unix.EPERM, unix.ENETUNREACH, unix.EHOSTUNREACH:
			at++ // lost, like any packet can be
		default:
			return fmt.Errorf("send to %v: %w", w.group, errno)
		}
	}
	w.Segments.Store(w.sender.Passed())
	w.Counters.SentPackets.Add(uint64(packets))
	var bytes uint64
	for i := range 2 * packets {
		bytes += uint64(w.iovs[i].Len)
	}
	w.Counters.SentBytes.Add(bytes)
	return nil
}
