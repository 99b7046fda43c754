package prom_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/khamsin-io/khamsin/transports/mem"
	"github.com/khamsin-io/khamsin/vsync"
	"github.com/khamsin-io/khamsin/vsync/prom"
)

// rows: OBS-02
func TestCollector(t *testing.T) {
	hub := mem.NewHub()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	registry := prometheus.NewPedanticRegistry()
	var groups []*vsync.Group
	for range 2 {
		s, err := vsync.Start(ctx, vsync.WithTransport(vsync.Mem(hub)), vsync.WithMute(),
			vsync.WithDiscovery(50*time.Millisecond))
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		registry.MustRegister(prom.New(s))
		g := s.NewGroup("a group")
		if err := g.Join(ctx); err != nil {
			t.Fatal(err)
		}
		groups = append(groups, g)
	}
	for _, g := range groups {
		if _, err := g.WaitForSize(ctx, 2); err != nil {
			t.Fatal(err)
		}
	}
	for range 10 {
		if err := groups[0].Send(ctx, 1, "nobody handles this"); err != nil {
			t.Fatal(err)
		}
	}
	if err := groups[0].Flush(ctx); err != nil {
		t.Fatal(err)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]float64{}
	for _, f := range families {
		for _, m := range f.Metric {
			var labels []string
			for _, l := range m.Label {
				if n := l.GetName(); n != "address" && n != "system" {
					labels = append(labels, l.GetValue())
				}
			}
			values[f.GetName()+" "+strings.Join(labels, ",")] += m.Gauge.GetValue() + m.Counter.GetValue()
		}
	}
	for name, least := range map[string]float64{
		"khamsin_packets_total sent,multicast": 1, "khamsin_packets_total received,multicast": 1,
		"khamsin_bytes_total sent,multicast": 100, "khamsin_group_members a group": 4, "khamsin_active ": 2,
		"khamsin_group_rank a group": 1, "khamsin_oracle_leader ": 1,
	} {
		if values[name] < least {
			t.Errorf("%s is %v, want at least %v", name, values[name], least)
		}
	}
	if problems, err := testutil.GatherAndLint(registry); err != nil || len(problems) > 0 {
		t.Errorf("%v %v", problems, err)
	}
}
