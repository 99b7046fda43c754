package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"text/tabwriter"

	"github.com/khamsin-io/khamsin/cmd/khamsin/internal/objects"
	"github.com/khamsin-io/khamsin/oob"
	"github.com/khamsin-io/khamsin/vsync"
)

type oobCommand struct {
	Serve     oobServeCommand     `cmd:"" help:"Serve: be a member of a group of daemons that hold objects."`
	Put       oobPutCommand       `cmd:"" help:"Make an object of a file."`
	Get       oobGetCommand       `cmd:"" help:"Write an object to a file, when it is here."`
	Ls        oobLsCommand        `cmd:"" help:"List the objects, and where they are."`
	Replicate oobReplicateCommand `cmd:"" help:"Set which members hold an object."`
	Rm        oobRmCommand        `cmd:"" help:"Delete an object everywhere."`
	Watch     oobWatchCommand     `cmd:"" help:"Tell what happens to objects, until interrupted."`
	Status    oobStatusCommand    `cmd:"" help:"Tell who the members are, and what the daemon has done."`
}

// oobSocket says which daemon is meant.
type oobSocket struct {
	Name   string `default:"default" help:"Name of the daemon, of which there may be several on a host."`
	Socket string `placeholder:"PATH" help:"Its socket; default: by its name."`
	JSON   bool   `name:"json" help:"Print JSON."`
}

func (s *oobSocket) path() (string, error) {
	if s.Socket != "" {
		return filepath.Abs(s.Socket)
	}
	return objects.SocketPath(s.Name), objects.CheckSocketName(s.Name)
}

// call makes one request of the daemon.
func (s *oobSocket) call(ctx context.Context, method string, params, result any,
	hear func(string, json.RawMessage)) error {
	path, err := s.path()
	if err != nil {
		return err
	}
	c, err := objects.Dial(path)
	if err != nil {
		return err
	}
	return errors.Join(c.Call(ctx, method, params, result, hear), c.Close())
}

type oobServeCommand struct {
	oobSocket
	systemFlags
	Group     string `default:"oob" help:"Name of the group."`
	Dir       string `type:"existingdir" placeholder:"DIR" help:"Objects are files there, instead of memory."`
	Transfers int    `help:"Transfers at once in the whole group; default: ISIS_OOBMAXIPMCADDRS, else 4."`
	Spare     int64  `default:"48" placeholder:"MIB" help:"Mebibytes of deleted objects to keep as memory for the next ones: ${default}."`
}

// Run serves until it is told to end.
func (c *oobServeCommand) Run(ctx context.Context) error {
	oob.MoreProcs()
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	path, err := c.path()
	if err != nil {
		return err
	}
	opts, err := c.options(log)
	if err != nil {
		return err
	}
	l, err := objects.Listen(path)
	if err != nil {
		return err
	}
	defer func() { _ = l.Close() }()
	sys, err := startUnlessTold(ctx, opts)
	if sys == nil || err != nil {
		return err
	}
	defer func() { _ = sys.Close() }()
	g := sys.NewGroup(c.Group)
	var options []oob.Option
	if c.Dir != "" {
		options = append(options, oob.WithDirectory(c.Dir))
	}
	if c.Transfers > 0 {
		options = append(options, oob.WithMaxTransfers(c.Transfers))
	}
	options = append(options, oob.WithSpareMemory(c.Spare<<20))
	store, err := oob.Attach(g, options...)
	if err != nil {
		return err
	}
	defer func() { _ = store.Close() }()
	if err := g.Join(ctx); err != nil {
		return err
	}
	if err := c.ready(sys, path); err != nil {
		return err
	}
	serving, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		select {
		case <-sys.Done():
		case <-g.Over():
		case <-serving.Done():
		}
		stop()
	}()
	s := &objects.Server{System: sys, Group: g, Store: store, Log: log}
	err = s.Serve(serving, l)
	if ctx.Err() == nil && err == nil {
		return fmt.Errorf("the group has ended here: %w", errors.Join(g.Err(), sys.Wait()))
	}
	return errors.Join(err, notify("STOPPING=1"))
}

func (c *oobServeCommand) ready(sys *vsync.System, path string) error {
	if c.JSON {
		err := printLine(os.Stdout, map[string]any{
			"ready": true, "socket": path, "group": c.Group, "address": sys.Address().String(),
		})
		if err != nil {
			return err
		}
	} else if _, err := fmt.Printf("ready: group %q, socket %s, %v\n", c.Group, path, sys.Address()); err != nil {
		return err
	}
	return notify("READY=1\nSTATUS=" + sys.Address().String())
}

type oobPutCommand struct {
	oobSocket
	File string   `arg:"" type:"existingfile" help:"The file."`
	As   string   `placeholder:"NAME" help:"Name of the object; default: the file's."`
	To   []string `placeholder:"WHO" help:"Replicate at once: all, a number of copies, IP addresses, process ids, #0, #1 …"`
}

// Run puts a file.
func (c *oobPutCommand) Run(ctx context.Context) error {
	file, err := filepath.Abs(c.File)
	if err != nil {
		return err
	}
	name := c.As
	if name == "" {
		name = filepath.Base(file)
	}
	return c.move(ctx, "put", name, map[string]any{"name": name, "path": file, "to": c.To})
}

// move makes a request that moves bytes.
func (s *oobSocket) move(ctx context.Context, method, name string, params map[string]any) error {
	bar := objects.NewBar(os.Stderr, name)
	var m objects.Moved
	err := s.call(ctx, method, params, &m, bar.Hear)
	if bar.End(); err != nil {
		return err
	}
	if s.JSON {
		return printLine(os.Stdout, m)
	}
	_, err = fmt.Printf("%s: %s, %d holders, digest %s, %.2f s\n", m.Name, objects.Bytes(m.Size), m.Holders, m.Digest,
		m.Seconds)
	return err
}

type oobGetCommand struct {
	oobSocket
	Object  string  `arg:"" name:"name" help:"Name of the object."`
	File    string  `arg:"" optional:"" help:"Where to; default: its name, here."`
	Replace bool    `help:"Replace a file that is there."`
	Timeout float64 `default:"60" help:"Seconds to wait for the object."`
}

// Run gets an object.
func (c *oobGetCommand) Run(ctx context.Context) error {
	file := c.File
	if file == "" {
		if err := oob.CheckName(c.Object); err != nil {
			return err
		}
		file = c.Object
	}
	file, err := filepath.Abs(file)
	if err != nil {
		return err
	}
	return c.move(ctx, "get", c.Object, map[string]any{
		"name": c.Object, "path": file, "replace": c.Replace, "timeout_s": c.Timeout,
	})
}

type oobReplicateCommand struct {
	oobSocket
	Object  string   `arg:"" name:"name" help:"Name of the object."`
	To      []string `required:"" placeholder:"WHO" help:"all, a number of copies, IP addresses, process ids, #0, #1 …"`
	NoWait  bool     `help:"Do not wait until the copies are complete."`
	Timeout float64  `default:"3600" help:"Seconds to wait."`
}

// Run sets who holds an object.
func (c *oobReplicateCommand) Run(ctx context.Context) error {
	return c.move(ctx, "replicate", c.Object, map[string]any{
		"name": c.Object, "to": c.To, "no_wait": c.NoWait, "timeout_s": c.Timeout,
	})
}

type oobLsCommand struct{ oobSocket }

// Run lists the objects.
func (c *oobLsCommand) Run(ctx context.Context) error {
	var list []oob.Info
	if err := c.call(ctx, "ls", nil, &list, nil); err != nil {
		return err
	}
	if c.JSON {
		return printJSON(os.Stdout, list)
	}
	t := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "NAME\tSIZE\tHOLDERS\tCOMING\tSTATE\tHERE\tDIGEST")
	for _, i := range list {
		here := "no"
		if i.Local {
			here = "yes"
		}
		fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%s\t%s\t%s\n", i.Name, objects.Bytes(i.Size), len(i.Holders),
			len(i.Pending), i.State,
			here, i.Digest)
	}
	return t.Flush()
}

type oobRmCommand struct {
	oobSocket
	Object string `arg:"" name:"name" help:"Name of the object."`
}

// Run deletes an object.
func (c *oobRmCommand) Run(ctx context.Context) error {
	var done map[string]any
	if err := c.call(ctx, "rm", map[string]any{"name": c.Object}, &done, nil); err != nil {
		return err
	}
	if c.JSON {
		return printLine(os.Stdout, done)
	}
	return nil
}

type oobWatchCommand struct{ oobSocket }

// Run prints events, one a line.
func (c *oobWatchCommand) Run(ctx context.Context) error {
	var fault error
	err := c.call(ctx, "watch", nil, new(any), func(_ string, params json.RawMessage) {
		var e objects.Event
		if err := json.Unmarshal(params, &e); err != nil {
			fault = err
			return
		}
		switch {
		case c.JSON:
			fault = errors.Join(fault, printLine(os.Stdout, e))
		case e.Object == nil:
			fmt.Printf("%s %s\n", e.Event, e.Name)
		default:
			fmt.Printf("%s %s: %s, %d holders, %d coming, %s\n", e.Event, e.Name, objects.Bytes(e.Object.Size),
				len(e.Object.Holders), len(e.Object.Pending), e.Object.State)
		}
	})
	if ctx.Err() != nil {
		err = nil // interrupted, as it must be
	}
	return errors.Join(err, fault)
}

type oobStatusCommand struct{ oobSocket }

// Run prints the daemon's state.
func (c *oobStatusCommand) Run(ctx context.Context) error {
	var s objects.Status
	if err := c.call(ctx, "status", nil, &s, nil); err != nil {
		return err
	}
	if c.JSON {
		return printJSON(os.Stdout, s)
	}
	fmt.Printf("system %q over %s, group %q, objects in %s, %s used\n", s.System, s.Transport, s.Group, s.Stats.Memory,
		objects.Bytes(s.Stats.Used))
	if st := &s.Stats; st.WrittenBytes+st.LandedBytes > 0 {
		fmt.Printf("written from memory to memory: %s from here, %s to here\n", objects.Bytes(int64(st.WrittenBytes)),
			objects.Bytes(int64(st.LandedBytes)))
	}
	for i, m := range s.Members {
		here := ""
		if m == s.Self {
			here = "  this daemon"
		}
		fmt.Printf("#%d  %s%s\n", i, m, here)
	}
	return nil
}
