package mem

import (
	"errors"
	"fmt"

	"github.com/khamsin-io/khamsin/dataplane/frame"
)

// Defaults and limits of a Config.
const (
	DefaultMTU   = 1472
	DefaultQueue = 1024
	QueueMax     = 1 << 20
)

// Config says how a transport is opened. Zero fields take their defaults.
type Config struct {
	// Arena sizes the frames. Default: 1024 chunks to send, and twice the queue to receive.
	Arena frame.Config

	// MTU is the largest payload in bytes. It must fit behind the headroom of a chunk. Default DefaultMTU.
	MTU int

	// Queue is how many packets may wait for Receive. Default DefaultQueue.
	Queue int

	// UnicastOnly leaves out the channels.
	UnicastOnly bool

	// Weather is what happens to packets on their way to this transport. The zero Weather is fair.
	Weather Weather
}

// Weather makes a transport's arrivals unreliable, in the same way for the same seed and the same arrivals.
type Weather struct {
	Seed      uint64
	Loss      float64 // probability, from 0 to 1, that a packet vanishes
	Duplicate float64 // that it arrives twice
	Reorder   float64 // that it overtakes up to reorderSpan packets that wait before it
}

// reorderSpan is the farthest that a packet is moved ahead.
const reorderSpan = 8

func (c Config) withDefaults() Config {
	if c.MTU == 0 {
		c.MTU = DefaultMTU
	}
	if c.Queue == 0 {
		c.Queue = DefaultQueue
	}
	if c.Arena.ChunkSize == 0 {
		c.Arena.ChunkSize = frame.DefaultChunkSize
	}
	if c.Arena.Headroom == 0 {
		c.Arena.Headroom = frame.DefaultHeadroom
	}
	if c.Arena.RunChunks == 0 {
		c.Arena.RunChunks = 1
	}
	if c.Arena.TxChunks == 0 {
		c.Arena.TxChunks = 1024
	}
	if c.Arena.RxRuns == 0 {
		c.Arena.RxRuns = 2 * c.Queue
	}
	return c
}

// Validate reports everything that is wrong with c, defaults applied, or nil.
func (c Config) Validate() error {
	c = c.withDefaults()
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf("mem: "+format, args...)) }
	if room := c.Arena.ChunkSize - c.Arena.Headroom; c.MTU < 1 || c.MTU > room {
		fault("MTU %d is not from 1 to the %d bytes behind a chunk's headroom", c.MTU, room)
	}
	if c.Queue < 1 || c.Queue > QueueMax {
		fault("Queue %d is not from 1 to %d", c.Queue, QueueMax)
	}
	for _, p := range []struct {
		name string
		v    float64
	}{{"Loss", c.Weather.Loss}, {"Duplicate", c.Weather.Duplicate}, {"Reorder", c.Weather.Reorder}} {
		if !(p.v >= 0 && p.v <= 1) { // so that NaN is a fault too
			fault("Weather.%s %v is not a probability", p.name, p.v)
		}
	}
	return errors.Join(append(faults, c.Arena.Validate())...)
}
