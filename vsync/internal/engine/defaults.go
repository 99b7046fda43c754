package engine

import "time"

// fillDefaults replaces zero durations and sizes by the defaults.
func fillDefaults(c *Config) {
	t, l := Defaults()
	for _, x := range []struct {
		v *time.Duration
		d time.Duration
	}{
		{&c.Timing.Discovery, t.Discovery}, {&c.Timing.Beacon, t.Beacon}, {&c.Timing.Gather, t.Gather},
		{&c.Timing.Heartbeat, t.Heartbeat}, {&c.Timing.Suspect, t.Suspect}, {&c.Timing.OracleLost, t.OracleLost},
		{&c.Timing.Stuck, t.Stuck},
		{&c.Timing.Request, t.Request}, {&c.Timing.Nak, t.Nak}, {&c.Timing.Ack, t.Ack}, {&c.Timing.Sync, t.Sync},
		{&c.Timing.LinkRetry, t.LinkRetry}, {&c.Timing.Step, t.Step},
	} {
		if *x.v == 0 {
			*x.v = x.d
		}
	}
	for _, x := range []struct {
		v *int
		d int
	}{
		{&c.Limits.Window, l.Window}, {&c.Limits.Pending, l.Pending}, {&c.Limits.Queue, l.Queue},
		{&c.Limits.PeerQueue, l.PeerQueue},
		{&c.Limits.JoinerQueue, l.JoinerQueue}, {&c.Limits.Message, l.Message}, {&c.Limits.Transfer, l.Transfer},
		{&c.Oracle.Size, 3},
	} {
		if *x.v == 0 {
			*x.v = x.d
		}
	}
	if c.Channels.Count < 2 {
		c.Channels = Channels{Low: 5000, Count: 25}
	}
	c.Timing.Step = max(c.Timing.Step, c.Timing.Suspect*5/4)
}
