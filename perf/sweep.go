package perf

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// SweepOptions says which lengths of packets are tried, over which transports. What else is measured, Options say;
// their Packet and Transport do not count.
type SweepOptions struct {
	Options
	Packets    []int    // bytes of the longest packet; 0: the transport's default
	Transports []string // names of Transports
}

// SweepPoint is what one transport did with packets of one length.
type SweepPoint struct {
	Transport string  `json:"transport"`
	Packet    int     `json:"packet"`
	Result    *Result `json:"result,omitempty"`
	Error     string  `json:"error,omitempty"` // why there is no Result: the transport cannot do it
}

// validate reports everything that is wrong.
func (o *SweepOptions) validate() error {
	var faults []error
	if len(o.Packets) == 0 || len(o.Transports) == 0 {
		faults = append(faults, errors.New("a sweep takes at least one length of packets and one transport"))
	}
	for _, n := range o.Packets {
		for _, t := range o.Transports {
			faults = append(faults, o.at(t, n).Validate())
		}
	}
	return errors.Join(slices.CompactFunc(leaves(faults), func(a, b error) bool { return a.Error() == b.Error() })...)
}

// leaves returns the errors that joined ones consist of, sorted by their texts.
func leaves(list []error) (all []error) {
	for _, err := range list {
		if joined, ok := err.(interface{ Unwrap() []error }); ok {
			all = append(all, joined.Unwrap()...)
		} else if err != nil {
			all = append(all, err)
		}
	}
	slices.SortStableFunc(all, func(a, b error) int { return cmp.Compare(a.Error(), b.Error()) })
	return all
}

func (o *SweepOptions) at(transport string, packet int) *Options {
	at := o.Options
	at.Transport, at.Packet = transport, packet
	return &at
}

// Sweep measures every transport with every length of packets, one after another on this host, and returns the points
// with the fastest first: the most bytes a second at the slowest member. A point that a transport cannot do has its
// error; Sweep fails when none can be done. Command is this program with arguments that make it call Member; progress
// may be nil.
func Sweep(ctx context.Context, o SweepOptions, command []string, progress func(what string)) ([]SweepPoint, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	var points []SweepPoint
	done := 0
	for _, t := range o.Transports {
		for _, n := range o.Packets {
			if progress != nil {
				progress(fmt.Sprintf("%d of %d: %s, packets of %s", len(points)+1, len(o.Transports)*len(o.Packets), t,
					PacketName(n)))
			}
			p := SweepPoint{Transport: t, Packet: n}
			r, err := Local(ctx, *o.at(t, n), command)
			switch {
			case ctx.Err() != nil:
				return points, err
			case err != nil:
				p.Error, _, _ = strings.Cut(err.Error(), "\n")
			default:
				p.Result = r
				done++
			}
			points = append(points, p)
		}
	}
	slices.SortStableFunc(points, func(a, b SweepPoint) int { return cmp.Compare(b.rate(), a.rate()) })
	if done == 0 {
		return points, fmt.Errorf("nothing could be measured: %s", points[0].Error)
	}
	return points, nil
}

func (p *SweepPoint) rate() float64 {
	if p.Result == nil {
		return -1
	}
	return p.Result.MegabytesMin
}

// PacketName returns a length of packets as people write it.
func PacketName(n int) string {
	if n == 0 {
		return "the default length"
	}
	return fmt.Sprint(n, " bytes")
}
