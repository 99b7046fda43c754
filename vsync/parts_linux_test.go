package vsync

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/khamsin-io/khamsin/internal/netns"
)

// A larger system is cut into parts that have nothing in common: on the same hosts, with the same name of the system
// and of the group, but with ports of their own. Each part has its own ORACLE, and its group has the members and
// messages of the part alone. The loss of one part's whole ORACLE is nothing to the other, and no packet of one reaches
// the other.
//
// rows: ORC-20, NET-06
func TestPartsWithPortsOfTheirOwn(t *testing.T) {
	const each = 30
	hosts := netns.Bridged(t, "kvs-parts", 3, netns.Options{})
	var parts [2][]*member
	for i, h := range hosts {
		for k := range parts {
			c := DefaultConfig()
			c.Interfaces, c.Mute, c.FastStart = []string{netns.Interface}, true, i == 0
			c.OracleLost = patience
			c.GroupPort, c.PeerPort = uint16(7100+100*k), uint16(7110+100*k)
			var s *System
			var err error
			h.Do(func() { s, err = Start(context.Background(), WithConfig(c)) })
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = s.Close() })
			parts[k] = append(parts[k], joined(t, s, "inventory"))
		}
	}
	for k, part := range parts {
		for i, m := range part {
			m.untilSize(t, len(hosts))
			for n := range uint64(each) {
				m.send(t, Ordered, 1000*uint64(k+1)+100*uint64(i)+n)
			}
		}
	}
	for k, part := range parts {
		for _, m := range part {
			m.untilCount(t, each*len(hosts))
			for _, n := range m.numbers() {
				if int(n/1000) != k+1 {
					t.Errorf("part %d got message %d of the other", k, n)
				}
			}
			for _, a := range append(m.sys.State().Oracle, m.group.View().Members...) {
				if port := a.Endpoint().AddrPort().Port(); int(port/100) != 71+k {
					t.Errorf("part %d has %v in it", k, a)
				}
			}
		}
	}
	if a, b := parts[0][0].sys.State().Oracle, parts[1][0].sys.State().Oracle; len(a) != 3 || len(b) != 3 {
		t.Errorf("the ORACLEs are %v and %v", a, b)
	}
	views := parts[1][0].group.View().ID
	for _, m := range parts[0] {
		m.sys.Kill()
	}
	sent := each * len(hosts)
	for end := time.Now().Add(2 * parts[1][0].sys.config.SuspectAfter); time.Now().Before(end); {
		for _, m := range parts[1] {
			m.send(t, Ordered, 2999)
		}
		sent += len(parts[1])
		for _, m := range parts[1] {
			m.untilCount(t, sent)
		}
	}
	for i, m := range parts[1] {
		if v := m.group.View(); v.ID != views || len(v.Members) != len(hosts) {
			t.Errorf("host %d is in view %v", i, v)
		}
		if st := m.sys.Stats(); st.Transport.ReceiveForeign != 0 || st.BadPackets != 0 {
			t.Errorf("host %d got packets of the other part: %+v", i, st)
		}
	}
}

// numbers returns what was delivered.
func (m *member) numbers() []uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.state)
}
