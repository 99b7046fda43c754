package link

import "fmt"

// Dump describes the lanes that have something to do, a line each.
func (l *Links) Dump() string {
	s := ""
	for _, x := range l.active {
		s += fmt.Sprintf("  lane to %x kind %d group %d: %d queued, sent %d, acked %d, received %d, %d ahead\n",
			x.id.peer, x.id.kind, x.id.group, x.queue.len(), x.sentTo, x.ackedTo, x.receivedTo, len(x.ahead))
	}
	return s
}
