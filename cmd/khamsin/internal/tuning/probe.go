package tuning

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"

	"github.com/khamsin-io/khamsin/tune"
	"github.com/khamsin-io/khamsin/tune/probe"
)

// ProbeOptions says what is measured and where the results go.
type ProbeOptions struct {
	Iface   string
	Profile string
	To      string // address and port of an answering process; empty: one in this process
	Each    time.Duration
	Rounds  int
	Buffer  int
	Out     string // file for the configuration; empty: none
	HTML    string // file for the page; empty: none
	JSON    bool
}

// Probe measures.
func Probe(ctx context.Context, w io.Writer, progress *os.File, o ProbeOptions) error {
	c := probe.Config{Interface: o.Iface, Profile: tune.Profile(o.Profile), Each: o.Each, Rounds: o.Rounds,
		Buffer: o.Buffer}
	if o.To != "" {
		to, err := netip.ParseAddrPort(o.To)
		if err != nil {
			return failed(fmt.Errorf("--to %q: want an address and a port, such as 10.0.0.2:18800", o.To))
		}
		c.To = to
	}
	stop := func() {}
	if term.IsTerminal(int(progress.Fd())) {
		c.Progress, stop = bar(progress)
	}
	result, err := probe.Run(ctx, c)
	stop()
	if err != nil {
		return failed(err)
	}
	if o.JSON {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		err = enc.Encode(result)
	} else {
		err = result.WriteText(w)
	}
	err = errors.Join(err, save(o.Out, func(w io.Writer) error {
		_, err := io.WriteString(w, result.TOML())
		return err
	}), save(o.HTML, result.WritePage))
	return failed(err)
}

// bar shows progress on a terminal. The second function ends it.
func bar(out io.Writer) (report func(done, total int), stop func()) {
	p := mpb.New(mpb.WithOutput(out), mpb.WithWidth(50))
	b := p.AddBar(0, mpb.BarRemoveOnComplete(), mpb.PrependDecorators(decor.Name("measuring "),
		decor.CountersNoUnit("%d/%d")))
	report = func(done, total int) {
		b.SetTotal(int64(total), false)
		b.SetCurrent(int64(done))
	}
	return report, func() {
		b.Abort(true)
		p.Wait()
	}
}

// save writes a file, whole or not at all. An empty name means none.
func save(name string, write func(io.Writer) error) error {
	if name == "" {
		return nil
	}
	file, err := os.Create(name)
	if err != nil {
		return err
	}
	return errors.Join(write(file), file.Close())
}

// Answer answers probes until ctx ends.
func Answer(ctx context.Context, w io.Writer, iface string, port uint16) error {
	return failed(probe.Answer(ctx, iface, port, func(addr string) {
		fmt.Fprintf(w, "answering probes at %s; end with Ctrl-C\n", addr)
	}))
}
