package member

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// listed makes a process one of those on n listed hosts, process i on host i.
func listed(i, n int) func(*Config) {
	return func(c *Config) {
		for k := range n {
			c.Hosts = append(c.Hosts, fmt.Sprint("host", k))
		}
		if i < n {
			c.Host, c.Self.IP[15] = c.Hosts[i], byte(1+i)
		} else {
			c.Eligible = false
		}
	}
}

// systems returns how many systems there are, and how many processes belong to none.
func (w *net) systems() (count, none int) {
	seen := map[uint32]bool{}
	for _, x := range w.sites {
		switch {
		case x.dead:
		case x.m.Active():
			seen[x.out.System] = true
		default:
			none++
		}
	}
	return len(seen), none
}

// Where hosts are listed a majority of them founds a system, and fewer do not.
func TestFoundingByMajority(t *testing.T) {
	for hosts := 1; hosts <= 5; hosts++ {
		w := newNet(t)
		for i := range hosts {
			w.start(listed(i, hosts))
			w.run(3 * time.Second)
			if count, none := w.systems(); count > 0 != (2*(i+1) > hosts) || count > 0 && none > 0 {
				t.Errorf("%d of %d hosts: %d systems, %d processes in none", i+1, hosts, count, none)
			}
		}
	}
}

// Processes that do not count: of one host, of a host that is not listed, and on none.
func TestFoundingCountsHosts(t *testing.T) {
	w := newNet(t)
	for range 3 {
		w.start(listed(0, 3))
	}
	w.start(listed(3, 3))
	w.start(func(c *Config) { listed(1, 3)(c); c.Host = "elsewhere" })
	w.run(5 * time.Second)
	if count, _ := w.systems(); count != 0 {
		t.Errorf("%d systems", count)
	}
	if !w.sites[0].heard("warning: no system is found, and to found one takes processes on 2 of the hosts") {
		t.Errorf("it says %q", w.sites[0].said)
	}
	w.start(listed(1, 3))
	w.run(2 * time.Second)
	if count, none := w.systems(); count != 1 || none != 0 {
		t.Errorf("%d systems, %d processes in none", count, none)
	}
}

// A process that others voted for and that ended makes way.
func TestFounderDiesBefore(t *testing.T) {
	w := newNet(t)
	for i := range 3 {
		w.start(listed(i, 3))
	}
	w.run(200 * time.Millisecond)
	if got := w.sites[2].m.polls.choice; got != w.sites[0].self {
		t.Fatalf("the vote is for %v", got)
	}
	w.sites[0].dead = true
	w.run(5 * time.Second)
	if count, none := w.systems(); count != 1 || none != 0 {
		t.Errorf("%d systems, %d processes in none", count, none)
	}
}

// A founder that is cut off just when it has the votes makes no view, whoever asks it; the others, who found a system
// without it, do. It gives its own system up when it hears of theirs.
func TestFounderIsCutOff(t *testing.T) {
	for _, follower := range []bool{false, true} { // one of five is on the founder's side
		w := newNet(t)
		for i := range 5 {
			w.start(listed(i, 5))
			w.run(3 * time.Millisecond) // they do not send at the same time
		}
		for n := 0; w.sites[0].m.cons == nil; n++ {
			if n > 10_000 {
				t.Fatal("nobody founds a system")
			}
			w.run(100 * time.Microsecond)
		}
		mine, others := []int{0}, []int{1, 2, 3, 4}
		if follower {
			mine, others = []int{0, 1}, []int{2, 3, 4}
		}
		w.divide(mine, others, true)
		w.run(5 * time.Second)
		if count, _ := w.systems(); count != 2 {
			t.Fatalf("%d systems: the founder was to be alone in one", count)
		}
		for _, i := range []int{0, 4} {
			w.sites[i].m.Join(w.now, Command{Group: "g", Who: w.sites[i].self, Handle: 1})
		}
		w.run(5 * time.Second)
		if v := w.sites[0].view["g"]; v != nil {
			t.Errorf("the minority made view %v", v.View)
		}
		if w.sites[4].view["g"] == nil {
			t.Errorf("the majority made no view: %s", w.sites[4].m.Dump())
		}
		w.divide(mine, others, false)
		w.run(8 * time.Second)
		for _, i := range mine {
			x := w.sites[i]
			if x.m.Active() && x.out.System != w.sites[4].out.System {
				t.Errorf("process %d goes on in the minority's system: %s, %q", i, x.m.Dump(), x.said)
			}
			if !x.m.Active() && !x.heard("lost") {
				t.Errorf("process %d belongs to no system: %s", i, x.m.Dump())
			}
		}
	}
}

// Whichever pairs of hosts reach each other, there is one system at most; and one, with everybody in it, when they all
// do. Some hosts run more than one process.
func TestOneFounderOfAMajority(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		hosts := rapid.IntRange(2, 5).Draw(r, "hosts")
		w := newNet(t)
		n := hosts + rapid.IntRange(0, 3).Draw(r, "more")
		on := func(host int) (list []int) {
			for i := host; i < n; i += hosts {
				list = append(list, i)
			}
			return list
		}
		for i := range hosts {
			for k := range i {
				if rapid.Bool().Draw(r, "apart") {
					w.divide(on(i), on(k), true)
				}
			}
		}
		for i := range n {
			w.start(listed(i%hosts, hosts))
			w.run(time.Duration(rapid.IntRange(0, 400).Draw(r, "later")) * time.Millisecond)
		}
		w.run(4 * time.Second)
		if count, _ := w.systems(); count > 1 {
			r.Fatalf("%d systems", count)
		}
		clear(w.apart)
		w.run(4 * time.Second)
		count, none := w.systems()
		if none += w.over(); count != 1 || none > w.over() {
			r.Fatalf("%d systems, %d processes in none, when all reach each other", count, none)
		}
	})
}

// over returns how many processes have ended: they had lost the ORACLE.
func (w *net) over() (n int) {
	for _, x := range w.sites {
		if x.m.state == over {
			n++
		}
	}
	return n
}
