package main

import (
	"context"
	"fmt"
	"os"
	"text/tabwriter"

	"github.com/khamsin-io/khamsin/perf"
)

type perfBulkCommand struct {
	Receivers int     `default:"3" help:"Processes that get a copy."`
	Size      int64   `default:"268435456" help:"Bytes of all objects together."`
	Objects   int     `default:"1" help:"Objects that share them."`
	Loss      float64 `help:"Share of the packets that each receiver throws away, such as 0.01."`
	Transport string  `default:"auto" enum:"${transports}" help:"auto and udp: multicast; unicast and tcp: a chain; rdma: a chain of writes into memory, on the interface that ISIS_NETWORK_INTERFACES names. One of ${transports}."`
	Netns     bool    `help:"Each process in a network namespace of its own, on one bridge. Takes root."`
	Mbit      int     `help:"Limit each process's line to so many megabits a second. Takes --netns."`
	Runs      int     `default:"1" help:"Runs; the median one is printed."`
	Traffic   bool    `help:"Measure the latency of ordered messages, alone and beside transfers."`
	Dir       string  `type:"existingdir" placeholder:"DIR" help:"Objects are files there, instead of memory."`
	Transfers int     `help:"Transfers at once; default: ISIS_OOBMAXIPMCADDRS, else 4."`
	Spare     int64   `placeholder:"BYTES" help:"Bytes of deleted objects to keep as memory for the next ones; default: the library's, 48 MiB."`
	XDPBulk   string  `name:"xdp-bulk" enum:",driver,udp,xdp" default:"" help:"With --transport xdp: bulk bytes past the stack (xdp), by UDP (udp), or as the driver has it."`
	Find      bool    `help:"Try multicast and a chain, and one or more transfers at once, and print the fastest first."`
	JSON      bool    `name:"json" help:"Print one JSON object on stdout."`
}

// Run measures on this host.
func (c *perfBulkCommand) Run(ctx context.Context) error {
	command, err := memberOfPerf()
	if err != nil {
		return err
	}
	o := perf.BulkOptions{
		Receivers: c.Receivers, Size: c.Size, Objects: c.Objects, Loss: c.Loss, Transport: c.Transport, Netns: c.Netns,
		Megabits: c.Mbit, Runs: c.Runs, Traffic: c.Traffic, Dir: c.Dir, Transfers: c.Transfers,
		Spare:   c.Spare,
		XDPBulk: c.XDPBulk,
	}
	progress := func(what string) { fmt.Fprintln(os.Stderr, what+" …") }
	if c.Find {
		return c.find(ctx, o, command, progress)
	}
	r, err := perf.Bulk(ctx, o, command, progress)
	if err != nil {
		return err
	}
	if c.JSON {
		return printJSON(os.Stdout, r)
	}
	t := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintf(t, "%d bytes in %d objects to %d receivers, %s, in %s\n", r.Size, r.Objects, r.Receivers, r.Transport,
		r.Memory)
	fmt.Fprintf(t, "time\t%.3f s\t%.0f MB/s to each\n", r.Seconds, r.Rate)
	fmt.Fprintf(t, "copies in the page cache\t%.3f s\t%.0f MB/s\t%.0f %% of it reached\n", r.Floor.Seconds,
		r.Floor.Rate,
		100*r.Floor.Fraction)
	fmt.Fprintf(t, "sent by all\t%.4f times the bytes\n", r.WireRatio)
	if r.Written > 0 {
		fmt.Fprintf(t, "written from memory to memory\t%.4f times the bytes\n", float64(r.Written)/float64(r.Size))
	}
	fmt.Fprintf(t, "processors\t%.2f s\n", r.Processor)
	fmt.Fprintf(t, "digests\tequal: %v\n", r.Equal)
	if r.Busy.Count > 0 {
		fmt.Fprintf(t, "ordered messages, alone\tp50 %.0f µs\tp99 %.0f µs\n", r.Idle.P50, r.Idle.P99)
		fmt.Fprintf(t, "beside transfers\tp50 %.0f µs\tp99 %.0f µs\n", r.Busy.P50, r.Busy.P99)
	}
	return t.Flush()
}

// find prints a line for each way.
func (c *perfBulkCommand) find(ctx context.Context, o perf.BulkOptions, command []string,
	progress func(string)) error {
	results, err := perf.FindBulk(ctx, o, command, progress)
	if err != nil {
		return err
	}
	if c.JSON {
		return printJSON(os.Stdout, results)
	}
	t := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "BEST FIRST\tAT ONCE\tSECONDS\tMB/s TO EACH\tSENT BY ALL\tPROCESSORS")
	for _, r := range results {
		name := map[string]string{"udp": "multicast", "tcp": "chain"}[r.Transport]
		fmt.Fprintf(t, "%s\t%d\t%.3f\t%.0f\t%.2f\t%.2f s\n", name, r.Transfers, r.Seconds, r.Rate, r.WireRatio,
			r.Processor)
	}
	return t.Flush()
}
