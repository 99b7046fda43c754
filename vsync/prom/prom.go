// Package prom shows the counters and the state of systems to Prometheus. It is apart from package vsync so that
// programs that do not want metrics do not link their library. It reads by the public methods of a System, in whatever
// goroutine collects, and keeps nothing.
package prom

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/khamsin-io/khamsin/vsync"
)

// Collector is a prometheus.Collector of one system.
type Collector struct {
	sys *vsync.System

	packets, bytes, acks, naks, duplicates, dropped, refused *prometheus.Desc
	active, leader, oracle, suspects, frames, kept           *prometheus.Desc
	members, rank, view, waiting, unstable, queued, queries  *prometheus.Desc
	unhandled, malformed, slow, late, lost                   *prometheus.Desc
}

// New returns a collector of a system's numbers. Register it with a prometheus.Registerer; the system's address is a
// label of all its metrics, so that one registry may hold several systems.
func New(s *vsync.System) *Collector {
	own := prometheus.Labels{"system": s.Config().SystemName, "address": s.Address().String()}
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("khamsin_"+name, help, labels, own)
	}
	group := func(name, help string) *prometheus.Desc { return desc("group_"+name, help, "group") }
	return &Collector{
		sys:        s,
		packets:    desc("packets_total", "Packets by direction and way.", "direction", "way"),
		bytes:      desc("bytes_total", "Bytes of packets by direction and way.", "direction", "way"),
		acks:       desc("acks_total", "Packets that acknowledge.", "direction"),
		naks:       desc("naks_total", "Packets that ask for what is missing.", "direction"),
		duplicates: desc("duplicates_total", "Packets sent again, or received again.", "direction"),
		dropped:    desc("dropped_total", "Packets lost here for want of room.", "direction"),
		refused:    desc("refused_total", "Received packets that were dropped, by reason.", "reason"),
		active:     desc("active", "1 while the system is running."),
		leader:     desc("oracle_leader", "1 when this process leads the membership service."),
		oracle:     desc("oracle_members", "Members of the membership service."),
		suspects:   desc("suspects_total", "Processes that this one accused."),
		frames:     desc("frames", "Packets in memory."),
		kept:       desc("kept_packets", "Packets that handlers keep."),
		members:    group("members", "Members of the view that is being handled."),
		rank:       group("rank", "Rank of this process, -1 before the first view."),
		view:       group("view", "Number of the view that is being handled."),
		waiting:    group("waiting_packets", "Packets of this process that are not sent yet."),
		unstable:   group("unstable_packets", "Packets of this process that not all members have acknowledged."),
		queued:     group("queued_packets", "Packets that the handlers have not finished."),
		queries:    group("queries", "Queries that wait for replies."),
		unhandled:  group("unhandled_total", "Messages without a handler."),
		malformed:  group("malformed_total", "Messages that could not be read."),
		slow:       group("slow_handlers_total", "Handlers that ran longer than their deadline."),
		late:       group("late_replies_total", "Replies to queries that had ended."),
		lost:       group("lost_replies_total", "Replies that could not be sent."),
	}
}

// Describe sends the descriptions of all metrics.
func (c *Collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		c.packets, c.bytes, c.acks, c.naks, c.duplicates, c.dropped, c.refused, c.active, c.leader, c.oracle,
		c.suspects, c.frames, c.kept, c.members, c.rank, c.view, c.waiting, c.unstable, c.queued, c.queries,
		c.unhandled, c.malformed, c.slow, c.late, c.lost,
	} {
		ch <- d
	}
}

// Collect sends all metrics as they are now.
func (c *Collector) Collect(ch chan<- prometheus.Metric) {
	st := c.sys.State()
	out := sink{ch}
	c.direction(out, "sent", st.Stats.Sent)
	c.direction(out, "received", st.Stats.Received)
	refused := st.Stats.Refused
	out.count(c.refused, refused.BadChecksum, "checksum")
	out.count(c.refused, refused.Malformed, "malformed")
	out.count(c.refused, refused.Foreign, "foreign")
	out.count(c.refused, refused.Stale, "stale")
	out.gauge(c.active, truth(st.Active))
	out.gauge(c.leader, truth(st.Leader))
	out.gauge(c.oracle, float64(len(st.Oracle)))
	out.count(c.suspects, uint64(st.Suspects))
	out.gauge(c.frames, float64(st.OpenFrames))
	out.gauge(c.kept, float64(st.Kept))
	for i := range st.Groups {
		c.group(out, &st.Groups[i])
	}
}

func (c *Collector) direction(out sink, way string, d vsync.Direction) {
	out.count(c.packets, d.Unicast.Packets, way, "unicast")
	out.count(c.packets, d.Multicast.Packets, way, "multicast")
	out.count(c.bytes, d.Unicast.Bytes, way, "unicast")
	out.count(c.bytes, d.Multicast.Bytes, way, "multicast")
	out.count(c.acks, d.Acks, way)
	out.count(c.naks, d.Naks, way)
	out.count(c.duplicates, d.Duplicates, way)
	out.count(c.dropped, d.Dropped, way)
}

func (c *Collector) group(out sink, g *vsync.GroupState) {
	for _, x := range []struct {
		d *prometheus.Desc
		v float64
	}{
		{c.members, float64(len(g.Members))}, {c.rank, float64(g.Rank)}, {c.view, float64(g.View)},
		{c.waiting, float64(g.Waiting)}, {c.unstable, float64(g.Unstable)}, {c.queued, float64(g.Queued)},
		{c.queries, float64(g.Queries)},
	} {
		out.gauge(x.d, x.v, g.Name)
	}
	out.count(c.unhandled, g.Unhandled, g.Name)
	out.count(c.malformed, g.Malformed, g.Name)
	out.count(c.slow, g.Slow, g.Name)
	out.count(c.late, g.LateReplies, g.Name)
	out.count(c.lost, g.LostReplies, g.Name)
}

// sink is where metrics go.
type sink struct{ ch chan<- prometheus.Metric }

func (s sink) count(d *prometheus.Desc, v uint64, labels ...string) {
	s.ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
}

func (s sink) gauge(d *prometheus.Desc, v float64, labels ...string) {
	s.ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
