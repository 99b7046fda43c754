package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
)

// order is what the sender tells the receiving process, one JSON line each; the answer is one line too.
type order struct {
	Start  *cell  `json:",omitempty"`
	Load   string `json:",omitempty"` // "on" or "off"
	Burst  int    `json:",omitempty"` // messages per goroutine and millisecond under load; 0: as many as go
	Report bool   `json:",omitempty"` // the histogram since the last report
}

// answer is the receiving process's.
type answer struct {
	Port   int // raw: where it receives
	Spread spread
	Error  string
}

// partner is the receiving process as the sender holds it.
type partner struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *json.Decoder
	was answer // the last answer
}

// startChild starts the receiving process for a cell.
func startChild(ctx context.Context, x cell) (*partner, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &partner{cmd: exec.CommandContext(ctx, self, "--child")}
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p.cmd.Stderr = os.Stderr
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.out = json.NewDecoder(bufio.NewReader(out))
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	if err := p.do(order{Start: &x}); err != nil {
		p.stop()
		return nil, err
	}
	return p, nil
}

// do gives an order and waits for the answer.
func (p *partner) do(o order) error {
	if err := json.NewEncoder(p.in).Encode(o); err != nil {
		return err
	}
	p.was = answer{}
	if err := p.out.Decode(&p.was); err != nil {
		return fmt.Errorf("the receiving process: %w", err)
	}
	if p.was.Error != "" {
		return fmt.Errorf("the receiving process: %s", p.was.Error)
	}
	return nil
}

// report returns what the receiving process measured since the last report.
func (p *partner) report() (spread, error) {
	err := p.do(order{Report: true})
	return p.was.Spread, err
}

// stop ends the receiving process, which ends with its input.
func (p *partner) stop() {
	_ = p.in.Close()
	_ = p.cmd.Wait() // killed by its context if it does not end by itself
}

// child is the receiving process.
func child(ctx context.Context) error {
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	var r receiver
	defer func() {
		if r != nil {
			r.close()
		}
	}()
	for {
		var o order
		if in.Decode(&o) != nil {
			return nil
		}
		var a answer
		var err error
		switch {
		case o.Start != nil && o.Start.Raw != "":
			r, err = newRawReceiver(o.Start.Raw == "spin", &a)
		case o.Start != nil:
			r, err = newGroupReceiver(ctx, *o.Start)
		case o.Load != "":
			r.load(o.Load == "on", o.Burst)
		case o.Report:
			a.Spread = r.report()
		}
		if err != nil {
			a.Error = err.Error()
		}
		if err := out.Encode(a); err != nil {
			return err
		}
	}
}

// receiver is one end that answers probes.
type receiver interface {
	load(on bool, burst int)
	report() spread
	close()
}
