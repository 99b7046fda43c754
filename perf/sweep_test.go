package perf

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"
)

func sweepOptions() SweepOptions {
	return SweepOptions{Options: Options{
		Members: 2, Primitive: "send", Size: 8000, Senders: SendersOne, Waiting: "adaptive", Inline: true,
		Duration: 300 * time.Millisecond, WarmUp: 100 * time.Millisecond, Rate: 2000,
	}}
}

// Lengths of packets are tried over transports, longer packets are fewer, and what cannot be done has its reason.
//
// rows: FUT-07
func TestSweep(t *testing.T) {
	if testing.Short() {
		t.Skip("measurements one after another: the long run has them")
	}
	t.Setenv(memberFlag, "1")
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	o := sweepOptions()
	o.Packets, o.Transports = []int{1000, 16000, 65000}, []string{"udp", "tcp"}
	if !strings.Contains(o.at("udp", 1000).Transport, "udp") || o.Transport != "" {
		t.Fatal("a point changes the sweep's options")
	}
	said := 0
	points, err := Sweep(ctx, o, []string{os.Args[0]}, func(string) { said++ })
	if err != nil || len(points) != 6 || said != 6 {
		t.Fatalf("%d points, %d words of progress: %v", len(points), said, err)
	}
	packets := map[string]map[int]float64{"udp": {}, "tcp": {}}
	for i, p := range points {
		if i > 0 && p.rate() > points[i-1].rate() {
			t.Errorf("%s with %d is behind %s with %d, which is slower", p.Transport, p.Packet, points[i-1].Transport,
				points[i-1].Packet)
		}
		if p.Result == nil {
			t.Errorf("%s with %d: %s", p.Transport, p.Packet, p.Error)
			continue
		}
		if p.Result.Lost != 0 || p.Result.Duplicated != 0 {
			t.Errorf("%s with %d: lost %d, duplicated %d", p.Transport, p.Packet, p.Result.Lost, p.Result.Duplicated)
		}
		packets[p.Transport][p.Packet] = float64(p.Result.Packets.PacketsSent) / p.Result.DeliveredMin
	}
	for name, by := range packets {
		if by[16000]*2 > by[1000] {
			t.Errorf("%s sends %.2f packets for a message/s of up to 16000 bytes, %.2f of up to 1000", name, by[16000],
				by[1000])
		}
	}
	o.Packets, o.Transports = []int{100, 1000}, []string{"udp", "pigeon"}
	if _, err := Sweep(ctx, o, nil, nil); err == nil || strings.Count(err.Error(), "pigeon") != 1 ||
		!strings.Contains(err.Error(), "packet: 100") {
		t.Errorf("bad options: %v", err)
	}
}

// Interfaces in namespaces have the MTU that is asked for: packets of 8,000 bytes travel whole.
func TestSweepOfLongFrames(t *testing.T) {
	if testing.Short() {
		t.Skip("measurements one after another: the long run has them")
	}
	needNamespaces(t)
	t.Setenv(memberFlag, "1")
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	o := sweepOptions()
	o.Netns, o.MTU, o.Packets, o.Transports = true, 9000, []int{8900, 1000}, []string{"udp"}
	points, err := Sweep(ctx, o, []string{os.Args[0]}, nil)
	if err != nil {
		t.Fatal(err)
	}
	packets := map[int]float64{}
	for _, p := range points {
		if r := p.Result; r != nil && r.InterfaceMTU != 9000 {
			t.Errorf("the interfaces have an MTU of %d", r.InterfaceMTU)
		}
		if p.Result == nil {
			t.Fatalf("%d: %s", p.Packet, p.Error)
		}
		packets[p.Packet] = float64(p.Result.Packets.PacketsSent) / p.Result.DeliveredMin
	}
	if packets[8900]*2 > packets[1000] {
		t.Errorf("%.2f packets for a message/s with packets of 8900 bytes, %.2f of 1000", packets[8900], packets[1000])
	}
}
