package perf

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/khamsin-io/khamsin/internal/netns"
)

// theatre is a group of real processes, each in a network namespace of its own, to which things happen.
type theatre struct {
	*rounds
	t *testing.T
}

// stage starts processes that are this program, on a bridge.
func stage(t *testing.T, members int, oracleLost time.Duration) *theatre {
	t.Helper()
	needNetns(t)
	t.Setenv(memberFlag, "1")
	o := Options{
		Members: members, Primitive: "kill", Size: 64, Senders: SendersAll, Transport: "auto", Waiting: "block",
		Netns: true, Duration: time.Second,
	}
	if err := o.Validate(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	l := &local{options: o, command: []string{os.Args[0]}, began: time.Now()}
	t.Cleanup(func() {
		cancel()
		l.kill()
		l.end()
	})
	if err := l.start(); err != nil {
		t.Fatal(err)
	}
	x := &theatre{newRounds(l), t}
	x.change = func(p *part) { p.OracleLost = oracleLost }
	for range members {
		x.enter()
	}
	x.see(l.kids, whole(members))
	context.AfterFunc(ctx, l.kill) // ends every wait
	return x
}

func needNetns(t *testing.T) {
	t.Helper()
	var err error
	if os.Geteuid() != 0 {
		err = fmt.Errorf("not root")
	}
	if _, missing := exec.LookPath("nft"); err == nil {
		err = missing
	}
	netns.Require(t, "netns", err)
}

// enter starts one more process.
func (x *theatre) enter() *kid {
	x.t.Helper()
	k, err := x.enlist(context.Background())
	if err != nil {
		x.t.Fatal(err)
	}
	return k
}

// see makes processes wait for a view, and returns when the last one left somebody out.
func (x *theatre) see(who []*kid, o *awaitOrder) (at int64) {
	x.t.Helper()
	for _, k := range who {
		a, err := k.do(order{Await: o})
		if err != nil {
			x.t.Fatal(err)
		}
		at = max(at, a.At)
	}
	return at
}

// ends waits for the end of a process's system.
func (x *theatre) ends(k *kid) *fate {
	x.t.Helper()
	a, err := k.do(order{End: true})
	if err != nil {
		x.t.Fatal(err)
	}
	return a.Fate
}

// drop makes the bridge lose what one set of processes sends to another.
func (x *theatre) drop(from, to []*kid) {
	x.t.Helper()
	ports := func(kids []*kid) string {
		var names []string
		for _, k := range kids {
			names = append(names, fmt.Sprintf("%q", fmt.Sprintf("kprfp%d", k.index)))
		}
		return strings.Join(names, ", ")
	}
	x.nft(fmt.Sprintf("add table bridge cut\n"+
		"add chain bridge cut pass { type filter hook forward priority 0; }\n"+
		"add rule bridge cut pass iifname { %s } oifname { %s } drop\n", ports(from), ports(to)))
}

// heal ends all drops.
func (x *theatre) heal() { x.nft("delete table bridge cut\n") }

func (x *theatre) nft(rules string) {
	x.t.Helper()
	x.here(func() {
		cmd := exec.Command("nft", "-f", "-")
		cmd.Stdin = strings.NewReader(rules)
		if out, err := cmd.CombinedOutput(); err != nil {
			x.t.Errorf("nft: %v: %s", err, out)
		}
	})
	if x.t.Failed() {
		x.t.FailNow()
	}
}

// accusedBy fails the test unless a process was poisoned, and knows that one of some accused it, and why.
func (x *theatre) accusedBy(f *fate, accusers []*kid, reason string) {
	x.t.Helper()
	named := slices.ContainsFunc(accusers, func(k *kid) bool { return x.there[k].Address == f.Accuser })
	if !f.Poisoned || !named || !strings.Contains(f.Reason, reason) {
		x.t.Errorf("ended as %+v; want it poisoned, accused by another one, with the reason %q", f, reason)
	}
}

func (x *theatre) without(k *kid) []*kid {
	return slices.DeleteFunc(slices.Clone(x.kids), func(o *kid) bool { return o == k })
}

// A process that is stopped is left out, and when it goes on it is told by whom it was accused and why. The same
// program started again is a new member.
//
// rows: FD-03, FD-11, FD-12, FD-15
func TestStoppedProcess(t *testing.T) {
	x := stage(t, 3, 0)
	victim := x.kids[1]
	others := x.without(victim)
	if err := victim.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	x.see(others, &awaitOrder{Gone: x.there[victim].Address})
	if err := victim.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	x.accusedBy(x.ends(victim), others, "silent for more than")
	x.enter()
	x.see(others, whole(3))
}

// All processes are stopped for longer than silence is borne, as on a host that is suspended, and go on one after the
// other: nobody is accused, since nobody ran meanwhile.
func TestAllAreStopped(t *testing.T) {
	x := stage(t, 3, 0)
	for _, k := range x.kids {
		if err := k.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
	}
	<-time.After(2 * time.Second) // the suspension, not a wait for something
	for _, k := range x.kids {
		if err := k.cmd.Process.Signal(syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		<-time.After(200 * time.Millisecond) // likewise
	}
	x.enter()
	for _, k := range x.kids {
		a, err := k.do(order{Await: whole(4)})
		if err != nil {
			t.Fatal(err)
		}
		if a.Views != 4 {
			t.Errorf("process %d: view %d has all four, want the fourth", k.index, a.Views)
		}
	}
}

// The process that leads the membership service is stopped; the others go on under another one.
//
// rows: ORC-12
func TestStoppedLeader(t *testing.T) {
	x := stage(t, 4, 0)
	victim := x.kids[0]
	others := x.without(victim)
	if err := victim.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	x.see(others, &awaitOrder{Gone: x.there[victim].Address})
	if err := victim.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	x.accusedBy(x.ends(victim), others, "silent for more than")
	x.enter()
	x.see(others, whole(4))
}

// A process whose packets do not reach one other is left out, though it hears everybody, and is told why.
//
// rows: FD-11
func TestOneWayPartition(t *testing.T) {
	x := stage(t, 3, 0)
	victim := x.kids[1]
	x.drop([]*kid{victim}, x.kids[:1])
	x.see([]*kid{x.kids[0], x.kids[2]}, &awaitOrder{Gone: x.there[victim].Address})
	x.accusedBy(x.ends(victim), x.kids[:1], "silent for more than")
}

// When the network falls in two, the part with the majority of the membership service goes on, though the service's
// leader is in the other one. There every process ends in time, and none of them issues a view. A new process on the
// healed side joins.
//
// rows: FD-16, FD-15
func TestPartition(t *testing.T) {
	const lost = 4 * time.Second
	x := stage(t, 5, lost)
	minority := []*kid{x.kids[0], x.kids[3]}
	majority := []*kid{x.kids[1], x.kids[2], x.kids[4]}
	cut := x.clock.now()
	x.drop(minority, majority)
	x.drop(majority, minority)
	x.see(majority, &awaitOrder{Size: 3})
	for _, k := range minority {
		f := x.ends(k)
		if !f.Lost {
			t.Errorf("process %d of the minority ended as %+v, want the ORACLE lost", k.index, f)
		}
		if took := time.Duration(f.At - cut); took < lost/2 || took > 2*lost {
			t.Errorf("process %d of the minority ended after %v", k.index, took)
		}
	}
	x.heal()
	x.dismissAll(minority)
	x.enter()
	x.see(majority, &awaitOrder{Size: 4})
}

// dismissAll ends processes.
func (x *theatre) dismissAll(kids []*kid) {
	for _, k := range kids {
		_ = k.cmd.Process.Kill()
		x.dismiss(k)
	}
}

// Many processes that die at the same moment are left out together.
//
// rows: FD-20
func TestManyDieAtOnce(t *testing.T) {
	x := stage(t, 7, 0)
	victims := []*kid{x.kids[2], x.kids[4], x.kids[5]} // one of the ORACLE's three
	survivors := slices.DeleteFunc(slices.Clone(x.kids), func(k *kid) bool { return slices.Contains(victims, k) })
	for _, k := range victims {
		if err := k.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
	}
	x.see(survivors, &awaitOrder{Size: 4})
}

// A member whose cable is cut is out of the others' view.
//
// rows: FD-01
func TestCut(t *testing.T) {
	needNetns(t)
	r := runLocal(t, func(o *Options) { o.Primitive, o.Count, o.Netns = "cut", 2, true })
	if l := r.Latency; l.Count != 2 || l.P50 < 900e3 {
		t.Errorf("removal took %+v; silence counts after 1.2 s, less 0.2 s since the last sign of life", l)
	}
}

// The leader of the membership service is killed while a process joins, which gets its view all the same.
//
// rows: ORC-15
func TestLeaderDiesDuringAJoin(t *testing.T) {
	x := stage(t, 4, 0)
	leader := x.kids[0]
	var joiner *kid
	var err error
	x.here(func() { joiner, err = x.startMember(x.next) })
	if err != nil {
		t.Fatal(err)
	}
	p := x.part(joiner.index)
	answered := make(chan error, 1)
	var a answer
	go func() {
		var err error
		a, err = joiner.do(order{Attend: p})
		answered <- err
	}()
	x.see(x.kids[1:2], &awaitOrder{Size: 5}) // the view is there at one member; the joiner may lack it yet
	if err := leader.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := <-answered; err != nil || a.Attended == nil {
		t.Fatalf("the joiner: %+v, %v", a, err)
	}
	x.there[joiner] = a.Attended
	x.see(x.without(leader), &awaitOrder{Size: 4})
}

// What others send to a process goes by way of a router, and what it sends to them does not: it is a member like any
// other, hears of a crash at once, and is not accused while silence counts.
func TestAsymmetricRoutes(t *testing.T) {
	x := stage(t, 4, 0)
	router, odd := x.kids[2], x.kids[3]
	at := func(k *kid) string { return lanAddress(k.index).String() }
	inside(t, router, "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv4.conf.all.send_redirects=0",
		"net.ipv4.conf."+lanInterface+".send_redirects=0")
	for _, k := range x.kids[:2] {
		inside(t, k, "ip", "route", "add", at(odd)+"/32", "via", at(router), "dev", lanInterface)
	}
	joiner := x.enter() // takes part in views with the odd one
	x.see(x.kids, whole(5))
	if err := joiner.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	x.see(x.without(joiner), &awaitOrder{Gone: x.there[joiner].Address, Size: 4})
	x.dismiss(joiner)
	stopped := x.kids[1] // found dead by silence: so long everybody else was watched, and not accused
	if err := stopped.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	x.see(x.without(stopped), &awaitOrder{Gone: x.there[stopped].Address, Size: 3})
	if n := forwarded(t, router); n < 10 {
		t.Errorf("the router forwarded %d packets: the routes are not what the test needs", n)
	}
}

// forwarded returns how many packets a member's host has forwarded.
func forwarded(t *testing.T, k *kid) int {
	t.Helper()
	var names []string
	for line := range strings.Lines(string(inside(t, k, "cat", "/proc/net/snmp"))) {
		f := strings.Fields(line)
		switch i := slices.Index(names, "ForwDatagrams"); {
		case f[0] != "Ip:":
		case names == nil:
			names = f
		case i > 0 && i < len(f):
			n, err := strconv.Atoi(f[i])
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatal("/proc/net/snmp has no ForwDatagrams")
	return 0
}

// inside runs a command in a member's network namespace.
func inside(t *testing.T, k *kid, args ...string) []byte {
	t.Helper()
	args = append([]string{"-t", strconv.Itoa(k.cmd.Process.Pid), "-n"}, args...)
	out, err := exec.Command("nsenter", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("nsenter %v: %v: %s", args, err, out)
	}
	return out
}

// A firewall that resets a live process's lines and refuses new ones does not get it declared failed: asked over the
// transport, it answers.
//
// rows: FD-01
func TestFirewallIsNoCrash(t *testing.T) {
	x := stage(t, 3, 0)
	victim, stopped := x.kids[1], x.kids[2]
	inside(t, victim, "nft", "add table inet fw; add chain inet fw in { type filter hook input priority 0; }; "+
		"add rule inet fw in meta l4proto tcp reject with tcp reset")
	inside(t, victim, "ss", "-K", "state", "established")
	if left := strings.TrimSpace(string(inside(t, victim, "ss", "-Htn", "state", "established"))); left != "" {
		netns.Require(t, "sockdestroy", errors.New("this kernel destroys no sockets for ss -K"))
	}
	if err := stopped.cmd.Process.Signal(syscall.SIGSTOP); err != nil { // its silence takes longer than an accusation
		t.Fatal(err)
	}
	x.see([]*kid{x.kids[0], victim}, &awaitOrder{Gone: x.there[stopped].Address, Size: 2})
}
