package pdu

import (
	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/vsync/core"
)

// Type says what a control message is. Control messages travel on lanes between two processes.
type Type uint8

// The control messages, and who sends them to whom.
const (
	TypeNone      Type = iota
	TypeAttach         // process -> ORACLE: take me in
	TypeWelcome        // ORACLE -> process: taken in; also tells every change of the ORACLE's membership
	TypeRequest        // process -> ORACLE: a registry command
	TypeDone           // ORACLE -> process: its request was executed
	TypeRefuse         // ORACLE -> process: a join was refused, or the group is over for it
	TypePropose        // ORACLE -> coordinator -> members: the next view
	TypeReport         // member -> coordinator: what it holds
	TypeCut            // coordinator -> members: what the view's messages are
	TypeReady          // member -> coordinator: it holds all of the cut
	TypeDecide         // ORACLE -> coordinator -> members: the next view is decided
	TypeWatch          // ORACLE -> process: whom to watch, and who watches
	TypePoison         // anyone -> process: no longer part of the system
	TypeConsensus      // ORACLE member -> ORACLE member: a raft message
	TypeState          // state sender -> joiner: a piece of state
	TypePeer           // member -> member: an application's point-to-point message
	types
)

// Valid tells whether t is one of the types.
func (t Type) Valid() bool { return t > TypeNone && t < types }

// Decision is a view of a group that the ORACLE has committed, and how the view before it ends.
type Decision struct {
	Name       string
	Lid        uint32 // the group's number in packet headers
	Channel    dataplane.Channel
	SafeCopies int
	Prev       core.ViewID // the view that ends; 0 for a group's first
	View       *core.View
	Cut        []core.Seq     // by rank of Prev: how much of each stream belongs to it
	Source     core.Address   // who sends its state to those in Stateless; none when nobody has any
	Stateless  []core.Address // members of View that need state, in rank order
	Failed     []core.Address // members of Prev that are no longer part of the system
	Charges    []Charge       // why, one for each of Failed
}

// Charge is why a process was declared failed.
type Charge struct {
	By     core.Address // the first accuser whom the ORACLE heard
	Reason string
}

// append encodes c.
func (c *Charge) append(w *Writer) {
	w.Address(c.By)
	w.String(c.Reason)
}

// AppendCharges encodes a list of charges.
func AppendCharges(w *Writer, list []Charge) {
	w.Uint(uint64(len(list)))
	for i := range list {
		list[i].append(w)
	}
}

// ReadCharges reads what AppendCharges wrote.
func ReadCharges(r *Reader) []Charge {
	var list []Charge
	for range r.Count(core.AddressLen) {
		list = append(list, Charge{r.Address(), r.String()})
	}
	return list
}

// Append encodes d.
func (d *Decision) Append(w *Writer) {
	w.String(d.Name)
	w.Uint(uint64(d.Lid))
	w.Uint(uint64(d.Channel))
	w.Uint(uint64(d.SafeCopies + 1))
	w.Uint(uint64(d.Prev))
	w.View(d.View)
	w.Seqs(d.Cut)
	w.Address(d.Source)
	w.Addresses(d.Stateless)
	w.Addresses(d.Failed)
	AppendCharges(w, d.Charges)
}

// Decode reads what Append wrote; the reader's error tells about faults.
func (d *Decision) Decode(r *Reader) {
	*d = Decision{
		Name: r.String(), Lid: uint32(r.Uint()), Channel: dataplane.Channel(r.Uint()), SafeCopies: int(r.Uint()) - 1,
		Prev: core.ViewID(r.Uint()), View: r.View(), Cut: r.Seqs(), Source: r.Address(), Stateless: r.Addresses(),
		Failed: r.Addresses(), Charges: ReadCharges(r),
	}
	if len(d.Charges) != len(d.Failed) {
		r.fail()
	}
	if d.View == nil {
		r.fail()
	}
}

// Propose asks the members of a group to end their view and go to the next.
type Propose struct {
	Base        *Decision  // the view that ends, for members that have not installed it yet
	Next        *core.View // the view proposed
	Flushers    []core.Address
	Coordinator core.Address
}

// Append encodes p.
func (p *Propose) Append(w *Writer) {
	p.Base.Append(w)
	w.View(p.Next)
	w.Addresses(p.Flushers)
	w.Address(p.Coordinator)
}

// Decode reads what Append wrote.
func (p *Propose) Decode(r *Reader) {
	p.Base = new(Decision)
	p.Base.Decode(r)
	p.Next, p.Flushers, p.Coordinator = r.View(), r.Addresses(), r.Address()
	if p.Next == nil {
		r.fail()
	}
}

// Island is a run of packets held beyond the contiguous ones, both ends included.
type Island struct{ First, Last core.Seq }

// Holding is what a member holds of one stream.
type Holding struct {
	ReceivedTo core.Seq
	Islands    []Island
}

// Report tells the coordinator what a member holds of the view that ends.
type Report struct {
	Lid      uint32
	Next     core.ViewID
	Holdings []Holding // by rank of the ending view
	HasState bool
	Source   core.Address // who is sending it its state, when it has none yet
}

// Append encodes m.
func (m *Report) Append(w *Writer) {
	w.Uint(uint64(m.Lid))
	w.Uint(uint64(m.Next))
	w.Uint(uint64(len(m.Holdings)))
	for _, h := range m.Holdings {
		w.Uint(uint64(h.ReceivedTo))
		w.Uint(uint64(len(h.Islands)))
		at := h.ReceivedTo
		for _, i := range h.Islands {
			w.Uint(uint64(i.First - at))
			w.Uint(uint64(i.Last - i.First))
			at = i.Last
		}
	}
	w.Bool(m.HasState)
	w.Address(m.Source)
}

// Decode reads what Append wrote.
func (m *Report) Decode(r *Reader) {
	m.Lid, m.Next = uint32(r.Uint()), core.ViewID(r.Uint())
	m.Holdings = make([]Holding, r.Count(2))
	for i := range m.Holdings {
		h := &m.Holdings[i]
		h.ReceivedTo = core.Seq(r.Uint())
		h.Islands = make([]Island, r.Count(2))
		at := h.ReceivedTo
		for j := range h.Islands {
			first := at + core.Seq(r.Uint())
			last := first + core.Seq(r.Uint())
			if first <= at || last < first {
				r.fail()
			}
			h.Islands[j] = Island{first, last}
			at = last
		}
	}
	m.HasState, m.Source = r.Bool(), r.Address()
}

// Segment says who holds a run of a stream that some member may lack.
type Segment struct {
	Last   core.Seq // the run ends here; it starts behind the one before
	Holder core.Rank
}

// Cut tells the members what the messages of the ending view are, and where to find what they lack.
type Cut struct {
	Lid      uint32
	Next     core.ViewID
	Cut      []core.Seq  // by rank of the ending view
	Segments [][]Segment // by rank; empty where nobody lacks anything
}

// Append encodes m.
func (m *Cut) Append(w *Writer) {
	w.Uint(uint64(m.Lid))
	w.Uint(uint64(m.Next))
	w.Seqs(m.Cut)
	for _, list := range m.Segments {
		w.Uint(uint64(len(list)))
		for _, s := range list {
			w.Uint(uint64(s.Last))
			w.Uint(uint64(s.Holder))
		}
	}
}

// Decode reads what Append wrote.
func (m *Cut) Decode(r *Reader) {
	m.Lid, m.Next, m.Cut = uint32(r.Uint()), core.ViewID(r.Uint()), r.Seqs()
	m.Segments = make([][]Segment, len(m.Cut))
	for i := range m.Segments {
		n := r.Count(2)
		for range n {
			s := Segment{core.Seq(r.Uint()), core.Rank(r.Uint())}
			if s.Holder < 0 || int(s.Holder) >= len(m.Cut) {
				r.fail()
			}
			m.Segments[i] = append(m.Segments[i], s)
		}
	}
}

// Ready tells the coordinator that a member holds all of the cut.
type Ready struct {
	Lid  uint32
	Next core.ViewID
}

// Append encodes m.
func (m *Ready) Append(w *Writer) {
	w.Uint(uint64(m.Lid))
	w.Uint(uint64(m.Next))
}

// Decode reads what Append wrote.
func (m *Ready) Decode(r *Reader) { m.Lid, m.Next = uint32(r.Uint()), core.ViewID(r.Uint()) }

// Welcome tells a process that it is part of the system, and who the ORACLE is.
type Welcome struct {
	System uint32
	Part   uint32         // which part of a divided system, when partitions are ignored: see Machine.fork in member
	Oracle []core.Address // the leader first
}

// Append encodes m.
func (m *Welcome) Append(w *Writer) {
	w.Uint(uint64(m.System))
	w.Uint(uint64(m.Part))
	w.Addresses(m.Oracle)
}

// Decode reads what Append wrote.
func (m *Welcome) Decode(r *Reader) {
	m.System, m.Part, m.Oracle = uint32(r.Uint()), uint32(r.Uint()), r.Addresses()
}

// Done tells a process that its request was executed.
type Done struct{ Number uint64 }

// Append encodes m.
func (m *Done) Append(w *Writer) { w.Uint(m.Number) }

// Decode reads what Append wrote.
func (m *Done) Decode(r *Reader) { m.Number = r.Uint() }

// Watch assigns a process's part in failure detection.
type Watch struct {
	Epoch    uint64         // assignments of a lower epoch are out of date
	Targets  []core.Address // whom to watch
	Watchers []core.Address // to whom to send signs of life
}

// Append encodes m.
func (m *Watch) Append(w *Writer) {
	w.Uint(m.Epoch)
	w.Addresses(m.Targets)
	w.Addresses(m.Watchers)
}

// Decode reads what Append wrote.
func (m *Watch) Decode(r *Reader) {
	m.Epoch, m.Targets, m.Watchers = r.Uint(), r.Addresses(), r.Addresses()
}

// Refuse tells a process that its join failed.
type Refuse struct {
	Name     string
	Reason   uint8  // a member.Refusal
	Number   uint64 // of the request
	Handlers string // of the group's members, when the joiner's differ
}

// Append encodes m.
func (m *Refuse) Append(w *Writer) {
	w.String(m.Name)
	w.Byte(m.Reason)
	w.Uint(m.Number)
	w.String(m.Handlers)
}

// Decode reads what Append wrote.
func (m *Refuse) Decode(r *Reader) {
	m.Name, m.Reason, m.Number, m.Handlers = r.String(), r.Byte(), r.Uint(), r.String()
}

// Poison tells a process that it was removed from the system.
type Poison struct {
	Accuser core.Address // nobody, when the teller does not know
	Teller  core.Address
	Part    uint32 // of the teller
	Reason  string
}

// Append encodes m.
func (m *Poison) Append(w *Writer) {
	w.Address(m.Accuser)
	w.Address(m.Teller)
	w.Uint(uint64(m.Part))
	w.String(m.Reason)
}

// Decode reads what Append wrote.
func (m *Poison) Decode(r *Reader) {
	m.Accuser, m.Teller, m.Part, m.Reason = r.Address(), r.Address(), uint32(r.Uint()), r.String()
}

// Message is a control message.
type Message interface {
	Append(*Writer)
	Decode(*Reader)
}

// Encode returns the message with its type in front.
func Encode(t Type, m Message) []byte {
	w := Writer{B: []byte{byte(t)}}
	m.Append(&w)
	return w.B
}

// Decode reads a message without its type and refuses bytes left over.
func Decode(m Message, b []byte) error {
	r := NewReader(b)
	m.Decode(r)
	return r.End()
}
