package member

import (
	"github.com/khamsin-io/khamsin/vsync/core"
	"github.com/khamsin-io/khamsin/vsync/internal/pdu"
)

// Op says what a registry command does.
type Op uint8

// The registry commands.
const (
	opNone      Op = iota
	opAdd          // a process joins the system
	opRemove       // a process is removed: failed (accused by someone) or gone in order
	opJoin         // a process wants to be a member of a group
	opLeave        // a member leaves a group
	opTerminate    // a group ends for all members
	opCommit       // a coordinator has everyone ready for the next view
	opGather       // the leader's waiting time for more joins of a group is over
	opKeep         // a coordinator finds that a member who leaves is the last one with the state
	ops
)

// Refusal says why a join was refused.
type Refusal uint8

// The refusals.
const (
	RefusedNot Refusal = iota
	RefusedExists
	RefusedSignature
	RefusedFull
)

// Command is one entry of the replicated log.
type Command struct {
	Op     Op
	By     core.Address // the process that asks
	Number uint64       // its requests' numbers grow by one; zero for the ORACLE's own commands
	Handle uint32       // opJoin, opLeave: the requester's own number of its membership; it stays with the requester

	Who        core.Address // opAdd, opRemove, opKeep
	Eligible   bool         // opAdd: may be an ORACLE member
	Orderly    bool         // opRemove: went by itself
	Reason     string       // opRemove
	Group      string       // opJoin, opLeave, opTerminate, opGather, opKeep
	Create     bool         // opJoin: refuse when the group exists
	Signature  uint64       // opJoin
	Handlers   string       // opJoin: what Signature is the hash of, for a person to read
	SafeCopies int          // opJoin
	Own        bool         // opJoin: the group shall have a channel of its own, if it begins with this
	// opKeep: the proposal; opLeave: every state that this member had to make, up to this view, was received
	Through  core.ViewID
	Decision *pdu.Decision
}

// Encode returns the command's bytes.
func (c *Command) Encode() []byte {
	var w pdu.Writer
	w.Byte(byte(c.Op))
	w.Address(c.By)
	w.Uint(c.Number)
	switch c.Op {
	case opAdd, opRemove:
		w.Address(c.Who)
		w.Bool(c.Eligible)
		w.Bool(c.Orderly)
		w.String(c.Reason)
	case opJoin, opLeave, opTerminate, opGather:
		w.String(c.Group)
		w.Bool(c.Create)
		w.Uint(c.Signature)
		w.String(c.Handlers)
		w.Uint(uint64(c.SafeCopies + 1))
		w.Bool(c.Own)
		w.Uint(uint64(c.Through))
	case opKeep:
		w.String(c.Group)
		w.Address(c.Who)
		w.Uint(uint64(c.Through))
	case opCommit:
		c.Decision.Append(&w)
	}
	return w.B
}

// DecodeCommand reads a command and refuses malformed ones.
func DecodeCommand(b []byte) (*Command, error) {
	r := pdu.NewReader(b)
	c := &Command{Op: Op(r.Byte()), By: r.Address(), Number: r.Uint()}
	switch c.Op {
	case opAdd, opRemove:
		c.Who, c.Eligible, c.Orderly, c.Reason = r.Address(), r.Bool(), r.Bool(), r.String()
	case opJoin, opLeave, opTerminate, opGather:
		c.Group, c.Create, c.Signature, c.Handlers = r.String(), r.Bool(), r.Uint(), r.String()
		c.SafeCopies, c.Own = int(r.Uint())-1, r.Bool()
		c.Through = core.ViewID(r.Uint())
	case opKeep:
		c.Group, c.Who, c.Through = r.String(), r.Address(), core.ViewID(r.Uint())
	case opCommit:
		c.Decision = new(pdu.Decision)
		c.Decision.Decode(r)
	default:
		return nil, pdu.ErrMalformed
	}
	if err := r.End(); err != nil {
		return nil, err
	}
	return c, nil
}
