package demo

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"sync"

	"github.com/khamsin-io/khamsin/transports/mem"
	"github.com/khamsin-io/khamsin/vsync"
)

// peer is a member as the parent holds it.
type peer interface {
	send(c command)
	kill()    // at once, without telling it
	pid() int // 0: the parent's own
}

// launcher starts members. Their reports, the last one kindEnded, go to one function that any goroutine may call.
type launcher interface {
	launch(c conf) (peer, error)
	close() // kills whoever is left and waits for them
}

// processes launches members as processes: the program itself with other arguments.
type processes struct {
	program string
	tell    func(report)
	births  chan func()
	wait    sync.WaitGroup // readers
	mu      sync.Mutex
	alive   map[*process]bool
}

// process is a member in a process of its own.
type process struct {
	index  int
	cmd    *exec.Cmd
	in     io.WriteCloser
	orders *json.Encoder
	stderr tail
}

func newProcesses(program string, tell func(report)) *processes {
	p := &processes{program: program, tell: tell, births: make(chan func()), alive: make(map[*process]bool)}
	// Linux ends a child when the thread that started it ends, so all are started by one thread that stays.
	go func() {
		runtime.LockOSThread()
		for birth := range p.births {
			birth()
		}
	}()
	return p
}

func (p *processes) launch(c conf) (peer, error) {
	q := &process{index: c.Index, cmd: exec.Command(p.program, "member")}
	q.cmd.SysProcAttr = childAttributes()
	q.cmd.Stderr = &q.stderr
	var out io.ReadCloser
	var err error
	if q.in, err = q.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if out, err = q.cmd.StdoutPipe(); err != nil {
		return nil, err
	}
	started := make(chan error)
	p.births <- func() { started <- q.cmd.Start() }
	if err := <-started; err != nil {
		return nil, err
	}
	p.mu.Lock()
	p.alive[q] = true
	p.mu.Unlock()
	q.orders = json.NewEncoder(q.in)
	q.send(command{Do: doStart, Conf: &c})
	p.wait.Go(func() { p.read(q, out) })
	return q, nil
}

// read passes a process's reports on until it ends.
func (p *processes) read(q *process, out io.Reader) {
	d := json.NewDecoder(bufio.NewReader(out))
	for {
		var r report
		if err := d.Decode(&r); err != nil {
			break
		}
		p.tell(r)
	}
	_, _ = io.Copy(io.Discard, out)
	err := q.cmd.Wait()
	p.mu.Lock()
	delete(p.alive, q)
	p.mu.Unlock()
	text := "exit 0"
	if err != nil {
		text = err.Error() + "\n" + q.stderr.String()
	}
	p.tell(report{Kind: kindEnded, Index: q.index, Text: text})
}

func (p *processes) close() {
	p.mu.Lock()
	for q := range p.alive {
		q.kill()
	}
	p.mu.Unlock()
	p.wait.Wait()
	close(p.births)
}

func (q *process) send(c command) { _ = q.orders.Encode(c) } // a process that is gone is reported by read
func (q *process) kill()          { _ = q.cmd.Process.Kill() }
func (q *process) pid() int       { return q.cmd.Process.Pid }

// tail keeps the last bytes written to it.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

const tailMax = 8 << 10

// Write is io.Writer's.
func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, b...)
	if over := len(t.buf) - tailMax; over > 0 {
		t.buf = append(t.buf[:0], t.buf[over:]...)
	}
	return len(b), nil
}

// String returns the last bytes.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.TrimSpace(t.buf))
}

// Member is the main function of a member process: commands come by in, reports go out by out.
func Member(ctx context.Context, in io.Reader, out io.Writer, builtIn []byte) error {
	commands := make(chan command)
	go func() {
		defer close(commands)
		for d := json.NewDecoder(in); ; {
			var c command
			if d.Decode(&c) != nil {
				return // the parent is gone
			}
			commands <- c
		}
	}()
	var first command
	select {
	case first = <-commands:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if first.Do != doStart || first.Conf == nil {
		return errors.New("no start command")
	}
	input, err := load(first.Conf.Input, builtIn)
	if err != nil {
		return err
	}
	var mu sync.Mutex
	w := json.NewEncoder(out)
	m := &member{conf: *first.Conf, input: input, tell: func(r report) {
		mu.Lock()
		defer mu.Unlock()
		_ = w.Encode(r) // a parent that is gone hears nothing
	}}
	return m.run(ctx, commands)
}

// load reads the input from a file, or the built-in one.
func load(path string, builtIn []byte) ([]Movement, error) {
	if path == "" {
		return ParseMovements(bytes.NewReader(builtIn), "built-in movements.csv")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return ParseMovements(bufio.NewReader(f), path)
}

// goroutines launches members as Systems of this process, connected by a hub.
type goroutines struct {
	hub   *mem.Hub
	input []Movement
	tell  func(report)
	wait  sync.WaitGroup
	mu    sync.Mutex
	all   []*inProcess
}

// inProcess is a member in this process.
type inProcess struct {
	member   *member
	commands chan command
	cancel   context.CancelCauseFunc
}

func (g *goroutines) launch(c conf) (peer, error) {
	ctx, cancel := context.WithCancelCause(context.Background())
	p := &inProcess{commands: make(chan command, 16), cancel: cancel}
	p.member = &member{conf: c, input: g.input, tell: g.tell, transport: vsync.Mem(g.hub)}
	g.mu.Lock()
	g.all = append(g.all, p)
	g.mu.Unlock()
	g.wait.Go(func() {
		defer cancel(nil)
		text := "exit 0"
		if err := p.member.run(ctx, p.commands); err != nil {
			text = fmt.Sprint(err)
		}
		g.tell(report{Kind: kindEnded, Index: c.Index, Text: text})
	})
	return p, nil
}

func (g *goroutines) close() {
	g.mu.Lock()
	for _, p := range g.all {
		p.cancel(errAbandoned)
	}
	g.mu.Unlock()
	g.wait.Wait()
}

func (p *inProcess) send(c command) { p.commands <- c }
func (p *inProcess) kill()          { p.member.sys.Kill() }
func (p *inProcess) pid() int       { return 0 }
