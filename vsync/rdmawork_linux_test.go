//go:build cgo && rdma

package vsync

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/transporttest"
	"github.com/khamsin-io/khamsin/transports/rdma"
)

// A message of a system costs a small part of a call into C. All calls of both members are counted; those of who polls,
// which look in vain as often as there is time for, are only told.
func TestRDMAWork(t *testing.T) {
	itf := transporttest.RDMAInterface(t)
	for name, waiting := range map[string]Waiting{"block": Block, "adaptive": Adaptive} {
		t.Run(name, func(t *testing.T) {
			var transports []*rdma.Transport
			over := func(c *Config) (dataplane.Transport, error) {
				tr, err := RDMA()(c)
				if err == nil {
					transports = append(transports, tr.(*rdma.Transport))
				}
				return tr, err
			}
			var members []*member
			for i := range 2 {
				c := DefaultConfig()
				c.Transport, c.Interfaces, c.Waiting, c.Mute = over, []string{itf}, waiting, true
				c.OracleSize, c.Discovery, c.FastStart = 1, 20*time.Second, i == 0
				c.Heartbeat, c.SuspectAfter = 250*time.Millisecond, 4*time.Second
				s, err := Start(t.Context(), WithConfig(c))
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = s.Close() })
				members = append(members, joined(t, s, "work"))
			}
			members[0].untilSize(t, 2)
			calls := rdmaWork(t, members, transports)
			for range 2 { // other work on the host may have kept the senders from making a load
				if calls >= 0.1 && waiting == Block {
					calls = rdmaWork(t, members, transports)
				}
			}
			if calls >= 0.1 && waiting == Block && !raceEnabled { // with it senders make none
				t.Errorf("%.4f calls a message", calls)
			}
		})
	}
}

// rdmaWork sends messages at one member, counts what both do for them, and returns the calls into C for each.
func rdmaWork(t *testing.T, members []*member, transports []*rdma.Transport) (calls float64) {
	t.Helper()
	work := func() (v rdma.VerbsStats) {
		for _, tr := range transports {
			one := tr.Verbs()
			v.Calls += one.Calls
			v.WorkRequests += one.WorkRequests
			v.Signalled += one.Signalled
		}
		return v
	}
	const messages, size, senders = 20_000, 64, 8
	members[0].mu.Lock()
	have := len(members[0].state)
	members[0].mu.Unlock()
	before, ctx := work(), within(t)
	for sender := range uint64(senders) { // one alone would make no load
		go func() {
			payload := make([]byte, size)
			for i := range uint64(messages / senders) {
				binary.LittleEndian.PutUint64(payload, sender<<32|i)
				if err := members[0].group.SendBytes(ctx, Ordered, codeNumber, payload); err != nil {
					t.Error(err)
					return
				}
			}
		}()
	}
	for _, m := range members {
		m.untilCount(t, have+messages)
	}
	after := work()
	each := func(a, b uint64) float64 { return float64(a-b) / messages }
	calls = each(after.Calls, before.Calls)
	requests := each(after.WorkRequests, before.WorkRequests)
	t.Logf("MEASURED: %s: %d messages of %d bytes: %.4f calls into C, %.4f work requests, %.4f of them signalled, per "+
		"message, both members together", t.Name(), messages, size, calls, requests,
		each(after.Signalled, before.Signalled))
	if requests >= 0.1 {
		t.Errorf("%.4f work requests a message", requests)
	}
	return calls
}
