package vsync

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/khamsin-io/khamsin/internal/netns"
)

// multihomed returns a host with three interfaces of its own, and their names.
func multihomed(t *testing.T) (*netns.Host, []string) {
	t.Helper()
	h := netns.Bridged(t, "kvs-if", 1, netns.Options{})[0]
	names := []string{netns.Interface}
	for i := range 2 {
		name := fmt.Sprint("kif", i)
		h.Run("ip", "link", "add", name, "type", "veth", "peer", "name", name+"p")
		h.Run("ip", "addr", "add", fmt.Sprintf("10.97.%d.1/24", i), "dev", name)
		h.Run("ip", "link", "set", name+"p", "up")
		h.Run("ip", "link", "set", name, "up")
		names = append(names, name)
	}
	return h, names
}

// countPackets makes a host count what leaves by interfaces, except what its kernel sends by itself.
func countPackets(h *netns.Host, names []string) {
	h.Run("nft", "add table inet seen")
	for _, name := range names {
		h.Run("nft", "add chain inet seen "+name+" { type filter hook output priority 0; }")
		h.Run("nft", "add rule inet seen "+name+" oifname "+name+" meta l4proto { udp, tcp } counter")
	}
}

// sentBy returns how many packets were counted.
func sentBy(t *testing.T, h *netns.Host, name string) (n int) {
	t.Helper()
	text := h.Run("nft", "list chain inet seen "+name)
	_, counter, _ := strings.Cut(text, "counter packets ")
	if _, err := fmt.Sscan(counter, &n); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return n
}

// Several interfaces are used when several are named, and all that are up with a subnet and a netmask of zero; nothing
// leaves by the others. Without configuration nothing leaves the host.
//
// rows: NET-07, NET-08, NET-11
func TestSeveralInterfacesAreUsed(t *testing.T) {
	h, names := multihomed(t)
	h.Run("ip", "link", "add", "kifdown", "type", "veth", "peer", "name", "kifdownp") // is down
	countPackets(h, names)
	for _, c := range []struct {
		name string
		env  []string
		used []bool
	}{
		{"default", nil, []bool{false, false, false}},
		{"two named", []string{"ISIS_NETWORK_INTERFACES=" + names[0] + "," + names[2]}, []bool{true, false, true}},
		{"all", []string{"ISIS_SUBNET=0", "ISIS_NETMASK=0"}, []bool{true, true, true}},
		{"all, dotted", []string{"ISIS_SUBNET=0.0.0.0", "ISIS_NETMASK=0.0.0.0"}, []bool{true, true, true}},
		{"all but the first", []string{"ISIS_SUBNET=0", "ISIS_NETMASK=0", "ISIS_SKIP_FIRSTINTERFACE=true"},
			[]bool{false, true, true}},
		{"one and its mask", []string{"ISIS_SUBNET=10.97.0.0", "ISIS_NETMASK=255.255.0.0"}, []bool{false, true, true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			config, err := configFrom(c.env)
			if err != nil {
				t.Fatal(err)
			}
			config.Mute, config.Discovery = true, 100*time.Millisecond
			before := make([]int, len(names))
			for i, name := range names {
				before[i] = sentBy(t, h, name)
			}
			var s *System
			h.Do(func() { s, err = Start(context.Background(), WithConfig(config)) })
			if err != nil {
				t.Fatal(err)
			}
			m := joined(t, s, "here")
			for n := range uint64(50) {
				m.send(t, Ordered, n)
			}
			m.untilCount(t, 50)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			for i, name := range names {
				if sent := sentBy(t, h, name) - before[i]; (sent > 0) != c.used[i] {
					t.Errorf("%d packets left by %s", sent, name)
				}
			}
		})
	}
}

// Of several interfaces only the one that is chosen is used: by its name, by being the second when the first is to be
// skipped, or by its masked address. Nothing leaves by the others.
//
// rows: NET-07, NET-09, NET-10
func TestOnlyTheChosenInterface(t *testing.T) {
	h, names := multihomed(t)
	countPackets(h, names)
	for _, c := range []struct {
		name   string
		env    []string
		chosen int
	}{
		{"named", []string{"ISIS_NETWORK_INTERFACES=" + names[1]}, 1},
		{"skipped", []string{
			"ISIS_NETWORK_INTERFACES=" + names[0] + "," + names[2], "ISIS_SKIP_FIRSTINTERFACE=true",
		}, 2},
		{"masked", []string{"ISIS_SUBNET=10.97.0.0", "ISIS_NETMASK=255.255.255.0"}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			config, err := configFrom(c.env)
			if err != nil {
				t.Fatal(err)
			}
			config.TTL, config.Mute, config.Discovery = 1, true, 100*time.Millisecond
			before := make([]int, len(names))
			for i, name := range names {
				before[i] = sentBy(t, h, name)
			}
			var s *System
			h.Do(func() { s, err = Start(context.Background(), WithConfig(config)) })
			if err != nil {
				t.Fatal(err)
			}
			m := joined(t, s, "here")
			for n := range uint64(50) {
				m.send(t, Ordered, n)
			}
			m.untilCount(t, 50)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			for i, name := range names {
				if sent := sentBy(t, h, name) - before[i]; (sent > 0) != (i == c.chosen) {
					t.Errorf("%d packets left by %s, the chosen one is %s", sent, name, names[c.chosen])
				}
			}
		})
	}
}

// A process that talks on the loopback only, on a host with other interfaces, says so in its log and names them; one
// whose interface was named does not.
func TestHintOfOtherInterfaces(t *testing.T) {
	h, names := multihomed(t)
	for _, c := range []struct {
		options []Option
		hint    bool
	}{{nil, true}, {[]Option{WithInterfaces(names[1]), WithTTL(1)}, false}} {
		var log bytes.Buffer
		var s *System
		var err error
		h.Do(func() {
			s, err = Start(context.Background(), append(c.options, WithFastStart(),
				WithLogger(slog.New(slog.NewTextHandler(&log, nil))))...)
		})
		if err != nil {
			t.Fatal(err)
		}
		must(s.Close())
		text := log.String()
		if hint := strings.Contains(text, "this host only") && strings.Contains(text, names[2]); hint != c.hint {
			t.Errorf("hint %v, want %v: %s", hint, c.hint, text)
		}
	}
}

// An interface that is down refuses all packets. The buffer of the socket, which is not to blame, stays as it is.
func TestInterfaceDownGrowsNoBuffer(t *testing.T) {
	h := netns.Bridged(t, "kvs-down", 1, netns.Options{})[0]
	var s *System
	var err error
	h.Do(func() {
		s, err = Start(t.Context(), WithInterfaces(netns.Interface), WithFastStart(), WithMute())
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	before, on := s.Tuning()
	if !on {
		t.Fatal("there is no autotuner")
	}
	h.Run("ip", "link", "set", netns.Interface, "down")
	dropped := s.IOStats().Sent.Dropped
	deadline := time.Now().Add(patience)
	for refused := 0; refused < 3; { // longer than the tuner's interval, each
		if <-time.After(250 * time.Millisecond); time.Now().After(deadline) {
			t.Fatal("nothing is refused")
		}
		if now := s.IOStats().Sent.Dropped; now > dropped {
			dropped, refused = now, refused+1
		}
	}
	if after, _ := s.Tuning(); after.SendBuffer != before.SendBuffer || after.Made != before.Made {
		t.Errorf("send buffer %d before and %d after; decisions %+v", before.SendBuffer, after.SendBuffer,
			after.Decisions)
	}
}
