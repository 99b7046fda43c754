package sim

import "slices"

// system is one system of processes, as the processes know it: normally there is one in a world. A process that starts
// cut off from all others founds another, whose groups have nothing to do with those of the first.
type system struct {
	id     uint32
	number int  // from 1
	lost   bool // its ORACLE has lost a majority: all its processes must end
}

// attach notes of which system a process has become part. In a network that cuts nobody off, nobody founds a second
// system beside one that works.
func (w *World) attach(p *process) {
	id := p.engine.System()
	i := slices.IndexFunc(w.systems, func(s *system) bool { return s.id == id })
	if i < 0 {
		i = len(w.systems)
		w.systems = append(w.systems, &system{id: id, number: i + 1})
		for _, other := range w.live {
			if w.history.clean && !p.mute && other.system != nil && !other.system.lost && !other.stopping &&
				other.system.audible(w) {
				w.history.complain(checkOne, w.now, "%v founded a system, while %v is part of one", p.record,
					other.record)
				break
			}
		}
	}
	p.system = w.systems[i]
	p.record.system = p.system.number
	p.record.disturb = p.record.disturb || p.system.lost
}

// audible tells whether the system has an ORACLE that would answer: those that crash in a moment, and whose packets are
// lost until then, do not count. Seed 2166: the only member of the ORACLE was one of them.
func (s *system) audible(w *World) bool {
	alive := map[uint64]bool{}
	for _, p := range w.live {
		if p.system == s && !p.mute {
			alive[p.addr.Incarnation] = true
		}
	}
	return slices.ContainsFunc(w.live, func(p *process) bool {
		return p.system == s && !p.mute && canLead(p.engine.Quorums(), alive)
	})
}

// look finds out, when a process of the system has ended and when the world should come to rest, whether the ORACLE
// still has a majority: some live member of it must have a majority of live members in each set that it needs one of.
// A process that was made a member and has not read of it yet may turn a lost system into one that goes on.
func (s *system) look(w *World) {
	alive := map[uint64]bool{}
	for _, p := range w.live {
		if p.system == s {
			alive[p.addr.Incarnation] = true
		}
	}
	for _, p := range w.live {
		if p.system == s && canLead(p.engine.Quorums(), alive) {
			s.lost = false
			return
		}
	}
	if s.lost {
		return
	}
	s.lost = true
	w.trace.printf(w.now, "-", "the ORACLE of system %d has lost its majority", s.number)
	for _, p := range w.live {
		if p.system == s {
			p.record.disturb = true
		}
	}
}

// canLead tells whether a majority of each set is alive.
func canLead(quorums [][]uint64, alive map[uint64]bool) bool {
	for _, set := range quorums {
		n := 0
		for _, id := range set {
			n += btoi(alive[id])
		}
		if 2*n <= len(set) {
			return false
		}
	}
	return len(quorums) > 0
}

// isLost tells whether a process that looks for a system can find none: it may not found one, and nobody else will.
// Where hosts are listed it takes processes on a majority of them.
func (w *World) isLost(p *process) bool {
	if w.opts.Hosts > 0 {
		there := 0
		for _, q := range w.live {
			if q.attached {
				return false
			}
			there += btoi(w.mayFound(q))
		}
		return there <= w.opts.Hosts/2
	}
	return !w.mayFound(p) && !slices.ContainsFunc(w.live, func(q *process) bool { return q.attached || w.mayFound(q) })
}

// mayFound tells whether a process may be a member of the ORACLE.
func (w *World) mayFound(p *process) bool {
	if w.opts.Hosts > 0 {
		return p.node.number <= w.opts.Hosts
	}
	return p.node.number == 1 || w.opts.Oracle > 1
}

// waitsForHosts tells whether a member rightly has no view: too few of the listed hosts are left for a first one.
func (w *World) waitsForHosts(m *member) bool {
	if w.opts.Hosts == 0 || m.view != nil && m.view.ID != 0 {
		return false
	}
	there := 0
	for _, q := range w.live {
		there += btoi(q.system == m.p.system && w.mayFound(q))
	}
	return there <= w.opts.Hosts/2
}
