package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"text/tabwriter"

	"github.com/khamsin-io/khamsin/perf"
)

type perfSweepCommand struct {
	Packets    []int    `default:"1000,1472,4000,8900,16000,32000,65000" help:"Bytes of the longest packet, as many as are to be tried; 0 is the transport's default."`
	Transports []string `default:"udp,tcp" enum:"${transports}" help:"Transports to try, of ${transports}."`
	Primitive  string   `default:"ordered" enum:"${primitives}" help:"${primitives}."`
	Size       int      `default:"65536" help:"Bytes of a message, from 16."`
	Senders    string   `default:"all" enum:"one,all" help:"all, or one: the member of rank 1."`
	Members    int      `default:"3" help:"Processes."`
	Netns      bool     `help:"Each in a network namespace of its own, on one bridge. Takes root."`
	MTU        int      `name:"mtu" help:"MTU of the interfaces there; default: 1500. Takes --netns."`
	Loss       float64  `help:"Share of packets that every member loses on receiving, such as 0.01."`
	Seconds    float64  `default:"2" help:"Measured time of each."`
	JSON       bool     `name:"json" help:"Print a JSON list on stdout, the fastest first."`
}

// Run measures on this host, once for every transport and length of packets.
func (c *perfSweepCommand) Run(ctx context.Context) error {
	command, err := memberOfPerf()
	if err != nil {
		return err
	}
	points, err := perf.Sweep(ctx, perf.SweepOptions{
		Options: perf.Options{
			Members: c.Members, Primitive: c.Primitive, Size: c.Size, Senders: c.Senders, Waiting: "adaptive",
			Inline: true, Duration: seconds(c.Seconds), WarmUp: seconds(c.Seconds / 8), Netns: c.Netns, MTU: c.MTU,
			Loss: c.Loss,
		},
		Packets: c.Packets, Transports: c.Transports,
	}, command, func(what string) { fmt.Fprintln(os.Stderr, what+" …") })
	if err != nil {
		return err
	}
	if c.JSON {
		return printJSON(os.Stdout, points)
	}
	return printSweep(os.Stdout, points)
}

// printSweep prints a line for each point.
func printSweep(w io.Writer, points []perf.SweepPoint) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "BEST FIRST\tPACKETS\tMB/s\tMSGS/s\tP50\tP99\tCPU s PER MILLION\tSENT AGAIN")
	for _, p := range points {
		r := p.Result
		if r == nil {
			fmt.Fprintf(t, "%s\t%s\tcannot: %s\n", p.Transport, perf.PacketName(p.Packet), p.Error)
			continue
		}
		fmt.Fprintf(t, "%s\t%s\t%.1f\t%.0f\t%.0f µs\t%.0f µs\t%.2f\t%d\n", p.Transport, perf.PacketName(p.Packet),
			r.MegabytesMin, r.DeliveredMin, r.Latency.P50, r.Latency.P99, r.Processor, r.Retransmitted)
	}
	return t.Flush()
}
