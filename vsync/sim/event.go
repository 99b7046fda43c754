package sim

import "github.com/khamsin-io/khamsin/dataplane/clock"

// eventKind says what is due.
type eventKind uint8

// The kinds of events.
const (
	eventArrival  eventKind = iota // a packet reaches a node
	eventPoll                      // a node takes in the packets that reached it
	eventTimer                     // an engine's deadline
	eventHandle                    // a member's application handles its next delivery, or has finished one
	eventSend                      // a member's application sends its next burst
	eventRetry                     // a member's application makes its next attempt at something
	eventFault                     // the next entry of the plan
	eventWake                      // a paused node goes on
	eventLaunch                    // a process starts
	eventTransfer                  // the maker of a state goes on
	eventLine                      // a process is told that a line to another one was closed, or is open again
)

// String returns the word that stands in traces.
func (k eventKind) String() string {
	return [...]string{"arrival", "poll", "timer", "handle", "send", "retry", "fault", "wake", "launch", "transfer",
		"line"}[k]
}

// event is something due at a time. Events of the same time happen in the order in which they were scheduled.
type event struct {
	at     clock.Time
	number uint64
	kind   eventKind
	arg    int
	node   *node
	proc   *process
	member *member
	packet *packet
}

func (e *event) before(f *event) bool {
	return e.at < f.at || e.at == f.at && e.number < f.number
}

// agenda is a heap of events with four children to a parent.
type agenda struct {
	heap []event
	next uint64 // number of the next event
}

// add schedules e.
func (a *agenda) add(e event) {
	a.next++
	e.number = a.next
	a.heap = append(a.heap, e)
	i := len(a.heap) - 1
	for i > 0 {
		parent := (i - 1) / 4
		if a.heap[parent].before(&e) {
			break
		}
		a.heap[i] = a.heap[parent]
		i = parent
	}
	a.heap[i] = e
}

// first returns the time of the earliest event, clock.Never when there is none.
func (a *agenda) first() clock.Time {
	if len(a.heap) == 0 {
		return clock.Never
	}
	return a.heap[0].at
}

// take removes the earliest event and returns it. There must be one.
func (a *agenda) take() event {
	top := a.heap[0]
	n := len(a.heap) - 1
	last := a.heap[n]
	a.heap[n] = event{}
	a.heap = a.heap[:n]
	if n == 0 {
		return top
	}
	i := 0
	for {
		child := 4*i + 1
		if child >= n {
			break
		}
		for c := child + 1; c < min(4*i+5, n); c++ {
			if a.heap[c].before(&a.heap[child]) {
				child = c
			}
		}
		if last.before(&a.heap[child]) {
			break
		}
		a.heap[i] = a.heap[child]
		i = child
	}
	a.heap[i] = last
	return top
}
