package member

import (
	"strings"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/khamsin-io/khamsin/vsync/core"
)

// A member of the ORACLE that sends what raft would end the process for is refused, and the replica goes on.
//
// rows: SEC-19
func TestImplausibleMessages(t *testing.T) {
	self := core.Address{PID: 1, Incarnation: 5}
	c := found(self, NewRegistry(1, 1))
	for range 10 {
		c.Beat()
		c.Drain()
	}
	st := c.node.BasicStatus()
	last, err := c.storage.LastIndex()
	if err != nil || last == 0 || st.GetCommit() == 0 {
		t.Fatalf("last %d, committed %d, %v", last, st.GetCommit(), err)
	}
	message := func(kind raftpb.MessageType, change func(m *raftpb.Message)) []byte {
		m := &raftpb.Message{
			Type: kind.Enum(), From: proto.Uint64(9), To: proto.Uint64(self.Incarnation),
			Term: proto.Uint64(st.GetTerm() + 1),
		}
		change(m)
		b, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for want, b := range map[string][]byte{
		"commits entry": message(raftpb.MsgHeartbeat, func(m *raftpb.Message) { m.Commit = proto.Uint64(last + 100) }),
		"in the place of a committed": message(raftpb.MsgApp, func(m *raftpb.Message) {
			m.Index = proto.Uint64(last - 1)
			m.Entries = []*raftpb.Entry{{Index: proto.Uint64(last), Term: proto.Uint64(st.GetTerm() + 1)}}
		}),
		"behind entry": message(raftpb.MsgApp, func(m *raftpb.Message) {
			m.Index = proto.Uint64(last)
			m.Entries = []*raftpb.Entry{{Index: proto.Uint64(last + 7), Term: proto.Uint64(st.GetTerm() + 1)}}
		}),
	} {
		if _, err := c.Step(9, b, false); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}
