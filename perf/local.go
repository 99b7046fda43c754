package perf

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"
)

// Local measures on this host. Command is this program with arguments that make it call Member.
func Local(ctx context.Context, o Options, command []string) (*Result, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	if o.Profile != "" {
		if err := os.MkdirAll(o.Profile, 0o755); err != nil {
			return nil, err
		}
	}
	l := &local{options: o, command: command, began: time.Now()}
	defer l.end()
	if err := l.start(); err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, l.kill) // members that are killed answer no more, which ends every wait
	defer stop()
	measure := l.measure
	if o.inRounds() {
		measure = func() (*Result, error) { return l.measureRounds(ctx) }
	}
	result, err := measure()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return result, err
}

// local is a run on this host.
type local struct {
	options Options
	command []string
	began   time.Time
	lan     *lan   // nil: members meet on itf
	itf     string // the loopback, in most cases
	thread  chan func()
	mu      sync.Mutex // guards kids
	kids    []*kid
}

// start starts the member processes, all by one thread that lives as long as they do: Linux ends a child with the
// thread that started it, and the namespace of the bridge is that thread's.
func (l *local) start() (err error) {
	l.thread = make(chan func())
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine, and with it its namespace
		for f := range l.thread {
			f()
		}
	}()
	if l.itf, err = hostInterface(l.options.Transport); err != nil {
		return err
	}
	l.here(func() { err = l.startHere() })
	return err
}

// here runs f on the thread that starts the member processes.
func (l *local) here(f func()) {
	done := make(chan struct{})
	l.thread <- func() { defer close(done); f() }
	<-done
}

func (l *local) startHere() error {
	if l.options.Netns {
		var err error
		if l.lan, err = newLAN(l.options.MTU); err != nil {
			return err
		}
	}
	if l.options.inRounds() {
		return nil // members come and go
	}
	for i := range l.options.Members {
		if _, err := l.startMember(i); err != nil {
			return err
		}
	}
	return nil
}

// startMember starts a member process on the calling thread, and gives it its network.
func (l *local) startMember(i int) (*kid, error) {
	k, err := startKid(l.command, i, l.lan != nil)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	l.kids = append(l.kids, k)
	l.mu.Unlock()
	if l.lan == nil {
		return k, nil
	}
	o, err := l.lan.plug(i, k.cmd.Process.Pid)
	if err != nil {
		return nil, err
	}
	o.Loss = l.options.Loss
	_, err = k.do(order{Net: o})
	return k, err
}

func (l *local) kill() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, k := range l.kids {
		_ = k.cmd.Process.Kill()
	}
}

func (l *local) end() {
	var all sync.WaitGroup
	for _, k := range l.kids {
		all.Go(k.end)
	}
	all.Wait()
	close(l.thread)
}

// ports returns the ports of a run: the multicast one, and the first one of the members. They differ between runs at
// the same time, and lie below those that the system gives to others.
func ports() (group, peer uint16) {
	pid := os.Getpid()
	return uint16(21000 + pid%1000), uint16(22000 + pid%120*80)
}

// part returns what member i is to do.
func (l *local) part(i int) *part {
	p := &part{Options: l.options, Index: i, System: fmt.Sprintf("perf-%d", os.Getpid()), Interface: l.itf}
	p.GroupPort, p.PeerPort = ports()
	if l.lan != nil {
		p.Interface = lanInterface
		for j := range max(l.options.Members, i+1) {
			p.Hosts = append(p.Hosts, lanAddress(j).String())
		}
	} else {
		p.DropShare = l.options.Loss
	}
	if l.options.Profile != "" {
		p.Profile = filepath.Join(l.options.Profile, fmt.Sprintf("member%d.pprof", i))
	}
	return p
}

// measure runs the members and makes the result.
func (l *local) measure() (*Result, error) {
	var floor *Floor
	if l.options.Floor {
		var err error
		if floor, err = l.floor(l.options.Size); err != nil {
			return nil, fmt.Errorf("floor: %w", err)
		}
	}
	answers := make([]answer, len(l.kids))
	faults := make([]error, len(l.kids))
	var all sync.WaitGroup
	for i, k := range l.kids {
		all.Go(func() { answers[i], faults[i] = k.do(order{Run: l.part(i)}) })
	}
	all.Wait()
	var reports []*report
	for i := range answers {
		if answers[i].Report != nil {
			reports = append(reports, answers[i].Report)
		}
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	for i, k := range l.kids {
		if answers[i].Report != nil {
			all.Go(func() { _, faults[i] = k.do(order{Leave: true}) })
		}
	}
	all.Wait()
	result, err := merge(l.options, l.began, reports)
	if err != nil {
		return nil, err
	}
	result.Floor = floor
	return result, errors.Join(faults...)
}
