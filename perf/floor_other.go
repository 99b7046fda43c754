//go:build !linux

package perf

import (
	"context"
	"errors"
)

// floorServer is a member's side of the floor's measurements.
type floorServer struct{}

func (f *floorServer) do(_ context.Context, o *floorOrder) (*floorReport, error) {
	if o.Alone {
		return f.alone(), nil
	}
	return nil, errors.New("floor: raw sockets are measured on Linux only; use --no-floor")
}

func (*floorServer) stop() error { return nil }

// measureSystemCall is not measured here.
func measureSystemCall() float64 { return 0 }
