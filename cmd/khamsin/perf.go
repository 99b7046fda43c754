package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
	"time"

	"github.com/khamsin-io/khamsin/perf"
)

// perfCommand measures.
type perfCommand struct {
	Local  perfLocalCommand  `cmd:"" help:"Measure a group of processes on this host."`
	Run    perfRunCommand    `cmd:"" help:"Take part in a run that srun, mpirun or ssh starts on several hosts."`
	Sweep  perfSweepCommand  `cmd:"" help:"Try lengths of packets over several transports, and print the fastest first."`
	Report perfReportCommand `cmd:"" help:"Make one HTML page of results."`
	Floor  perfFloorCommand  `cmd:"" help:"Measure the machine itself: raw sockets, memory, rings."`
	Bulk   perfBulkCommand   `cmd:"" help:"Measure the replication of big objects between processes of this host."`
	Member perfMemberCommand `cmd:"" hidden:"" help:"One process of a measurement; started by it."`
}

// perfFlags say what to measure.
type perfFlags struct {
	Primitive string  `default:"ordered" enum:"${primitives}" help:"${primitives}."`
	Size      int     `default:"64" help:"Bytes of a message, from 16."`
	Senders   string  `default:"all" enum:"one,all" help:"all, or one: the member of rank 1."`
	Transport string  `default:"auto" enum:"${transports}" help:"${transports}. Local members use rdma on the interface that ISIS_NETWORK_INTERFACES names."`
	Waiting   string  `default:"adaptive" enum:"adaptive,block,busy" help:"How members wait for packets: adaptive, block, busy."`
	Seconds   float64 `default:"5" help:"Measured time."`
	WarmUp    float64 `default:"0.5" help:"Seconds before it."`
	Rate      float64 `help:"Messages a second of each sender; default: as fast as it goes."`
	Window    int     `help:"Packets of one sender that may be under way; default: the library's."`
	Packet    int     `help:"Bytes of the longest packet; default: the transport's."`
	Inline    bool    `default:"true" negatable:"" help:"Handlers on the receiver's goroutine."`
	JSON      bool    `name:"json" help:"Print one JSON object on stdout."`
	Profile   string  `type:"path" placeholder:"DIR" help:"Write profiles of each member there, of the processor and of allocations."`
}

func (f *perfFlags) options() perf.Options {
	return perf.Options{
		Primitive: f.Primitive, Size: f.Size, Senders: f.Senders, Transport: f.Transport, Waiting: f.Waiting,
		Inline: f.Inline, Duration: seconds(f.Seconds), WarmUp: seconds(f.WarmUp), Rate: f.Rate, Window: f.Window,
		Packet:  f.Packet,
		Profile: f.Profile,
	}
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

type perfLocalCommand struct {
	perfFlags
	Members int     `default:"3" help:"Processes."`
	Netns   bool    `help:"Each in a network namespace of its own, on one bridge. Takes root."`
	Loss    float64 `help:"Share of packets that every member loses on receiving, such as 0.01."`
	Count   int     `help:"Rounds of kill (a random member is killed), cut (its cable is taken out) and join (a new process); default: 5 of kill and cut, and join as calls in the same processes."`
	Detect  string  `default:"" enum:",steady,tight,patient" help:"Pace of failure detection: steady, tight or patient. Default: steady in rounds; else members are taken for dead after 10 s only."`
	MTU     int     `name:"mtu" help:"MTU of the interfaces in the namespaces; default: 1500. Takes --netns."`
	Floor   bool    `default:"true" negatable:"" help:"Measure the machine first, which takes three seconds."`
}

// Run measures on this host.
func (c *perfLocalCommand) Run(ctx context.Context) error {
	o := c.options()
	o.Members, o.Netns, o.Loss, o.Floor = c.Members, c.Netns, c.Loss, c.Floor
	o.Count, o.Detect, o.MTU = c.Count, c.Detect, c.MTU
	command, err := memberOfPerf()
	if err != nil {
		return err
	}
	r, err := perf.Local(ctx, o, command)
	if err != nil {
		return err
	}
	return printResult(os.Stdout, r, c.JSON)
}

type perfFloorCommand struct {
	Members int  `default:"3" help:"Processes: one sends, the others receive."`
	Netns   bool `help:"Each in a network namespace of its own, on one bridge. Takes root."`

	XDPBaseline bool `name:"xdp-baseline" help:"Compare AF_XDP receivers as well: ours, another implementation, UDP."`
}

// Run measures the machine and prints JSON.
func (c *perfFloorCommand) Run(ctx context.Context) error {
	command, err := memberOfPerf()
	if err != nil {
		return err
	}
	if c.XDPBaseline && !c.Netns {
		return errors.New("--xdp-baseline needs --netns: it attaches programs to no interfaces but those that it makes")
	}
	f, err := perf.MeasureFloor(ctx, c.Members, c.Netns, command)
	if err != nil {
		return err
	}
	if c.XDPBaseline {
		if f.XDP, err = perf.MeasureXDP(ctx, command); err != nil {
			return err
		}
	}
	return printJSON(os.Stdout, f)
}

type perfMemberCommand struct{}

// Run is a member's process.
func (perfMemberCommand) Run(ctx context.Context) error { return perf.Member(ctx, os.Stdin, os.Stdout) }

// memberOfPerf returns the command line of a member process.
func memberOfPerf() ([]string, error) {
	program, err := os.Executable()
	return []string{program, "perf", "member"}, err
}

// printLine prints a value as JSON on one line.
func printLine(w io.Writer, v any) error { return json.NewEncoder(w).Encode(v) }

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// printResult prints a result as JSON or for people.
func printResult(w io.Writer, r *perf.Result, asJSON bool) error {
	if asJSON {
		return printJSON(w, r)
	}
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintf(t, "%s, %d bytes, %d members, %s sending, %s, %.1f s\n", r.Primitive, r.Size, r.Members, r.Senders,
		r.Transport, r.Seconds)
	if r.Starved {
		fmt.Fprintln(t, "NOT TO BE USED: other work kept a member from the processor for most of the time")
	}
	fmt.Fprintf(t, "delivered, slowest member\t%.0f msgs/s\t%.1f MB/s\n", r.DeliveredMin, r.MegabytesMin)
	for _, l := range []struct {
		name string
		perf.Latency
	}{{"latency", r.Latency}, {"  at the sender", r.Own}, {"  elsewhere", r.Others}} {
		if l.Count > 0 {
			fmt.Fprintf(t, "%s\tp50 %.1f µs\tp90 %.1f\tp99 %.1f\tp99.9 %.1f\tmax %.1f\n", l.name, l.P50, l.P90, l.P99,
				l.P999, l.Max)
		}
	}
	fmt.Fprintf(t, "lost, duplicated\t%d\t%d\n", r.Lost, r.Duplicated)
	fmt.Fprintf(t, "packets sent, received\t%d\t%d\tdropped %d\tsent again %d\n", r.Packets.PacketsSent,
		r.Packets.PacketsReceived, r.Packets.ReceiveDropped, r.Retransmitted)
	fmt.Fprintf(t, "processor\t%.2f s per million messages\t%.2f cores\n", r.Processor, r.Cores1)
	fmt.Fprintf(t, "allocations\t%.4f per message\t%d collections\n", r.Allocations, r.Collections)
	if r.Suspicions > 0 {
		fmt.Fprintf(t, "members that were accused\t%d\n", r.Suspicions)
	}
	if r.Removal > 0 {
		fmt.Fprintf(t, "removal of the victim\t%.1f ms\n", r.Removal)
	}
	if f := r.Floor; f != nil && f.RTTBlock.Count > 0 {
		fmt.Fprintf(t, "raw UDP round trip, p50\t%.1f µs asleep (%.1f after a rest)\t%.1f µs polling\n", f.RTTBlock.P50,
			f.RTTRested.P50, f.RTTSpin.P50)
		fmt.Fprintf(t, "raw multicast\t%.0f msgs/s of 64 bytes\t%.0f MB/s in datagrams of 1400\n",
			f.Multicast64.Messages, f.MulticastBig.Megabytes)
	}
	return t.Flush()
}
