package perf

import "context"

// XDPWay is how one receiver took multicasts that an AF_XDP sender of ours sent to it as fast as it could.
type XDPWay struct {
	Way       string  `json:"way"`               // "khamsin/xdp", "asavie/xdp" or "khamsin/udp", without super-packets
	Size      int     `json:"size"`              // bytes of a payload
	Sent      float64 `json:"sent_per_s"`        //
	Messages  float64 `json:"msgs_per_s"`        // that came
	Processor float64 `json:"receiver_cpu_ns"`   // time of the receiver's thread, which polls, for each that came
	Missing   string  `json:"missing,omitempty"` // why this way is not to be had here; the numbers are zero then
}

// The ways, as an order names them. The other implementation is last: it is never detached, but ends with its process's
// namespace.
const (
	wayXDP   = "khamsin/xdp"
	wayUDP   = "khamsin/udp"
	wayOther = "asavie/xdp"
)

// MeasureXDP compares our AF_XDP transport, as a receiver, with another implementation and with our UDP transport
// without super-packets: the same sender, on the same virtual Ethernet, in turn. It takes root, and uses no interface
// but those that it makes.
func MeasureXDP(ctx context.Context, command []string) ([]XDPWay, error) {
	var list []XDPWay
	for _, size := range []int{floorSmall, floorBig} {
		for _, way := range []string{wayUDP, wayXDP, wayOther} {
			w, err := measureWay(ctx, way, size, command)
			if err != nil {
				return nil, err
			}
			list = append(list, w)
		}
	}
	return list, ctx.Err()
}

// measureWay measures with two fresh processes, each in a namespace of its own.
func measureWay(ctx context.Context, way string, size int, command []string) (XDPWay, error) {
	w := XDPWay{Way: way, Size: size}
	l := &local{options: Options{Members: 2, Netns: true}, command: command}
	defer l.end()
	if err := l.start(); err != nil {
		return w, err
	}
	stop := context.AfterFunc(ctx, l.kill)
	defer stop()
	step := func(i int, o floorOrder) (*floorReport, error) {
		o.Interface, o.Address, o.Way = lanInterface, lanAddress(i).String(), way
		a, err := l.kids[i].do(order{Floor: &o})
		if err != nil {
			return nil, err
		}
		return a.Floor, nil
	}
	ready, err := step(1, floorOrder{Sink: size})
	if err != nil || ready.Missing != "" {
		if ready != nil {
			w.Missing = ready.Missing
		}
		return w, err
	}
	sent, err := step(0, floorOrder{Blast: size})
	if err != nil || sent.Missing != "" {
		if sent != nil {
			w.Missing = sent.Missing
		}
		return w, err
	}
	got, err := step(1, floorOrder{Stop: true})
	if err != nil {
		return w, err
	}
	w.Sent, w.Messages = float64(sent.Count)/sent.Seconds, float64(got.Count)/sent.Seconds
	if got.Count > 0 {
		w.Processor = got.Processor * 1e9 / float64(got.Count)
	}
	return w, nil
}
