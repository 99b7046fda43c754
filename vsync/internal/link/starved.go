package link

import "github.com/khamsin-io/khamsin/dataplane/clock"

// feed lets lanes that found no frame go on, in turn, now that there are frames again.
func (l *Links) feed(now clock.Time) {
	for n := len(l.starved); n > 0 && l.out.Arena().Tx().Free() > 0; n-- {
		x := l.starved[0]
		l.starved[0] = nil
		l.starved = l.starved[1:]
		x.starved = false
		l.pump(now, x)
	}
}
