package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"time"

	"github.com/khamsin-io/khamsin/vsync"
)

type oracleCommand struct {
	systemFlags
	Size *int `help:"Members of the ORACLE when enough processes are there: 1, 3, 5 or 7; default: ISIS_ORACLESIZE, else 3."`
	JSON bool `name:"json" help:"Print the readiness line as a JSON object."`
}

// Run serves as a member of the ORACLE until it is told to end, or declared failed.
func (c *oracleCommand) Run(ctx context.Context) error {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	opts, err := c.options(log)
	if err != nil {
		return err
	}
	opts = append(opts, vsync.WithEligible(true))
	if c.Size != nil {
		opts = append(opts, vsync.WithOracleSize(*c.Size))
	}
	began := time.Now()
	s, err := startUnlessTold(ctx, opts)
	if s == nil || err != nil {
		return err
	}
	if err := c.ready(s, time.Since(began)); err != nil {
		return errors.Join(err, s.Close())
	}
	select {
	case <-ctx.Done():
		log.Info("leaving")
		return errors.Join(notify("STOPPING=1"), s.Close())
	case <-s.Done():
		return s.Wait()
	}
}

// startUnlessTold starts a system that does not end with ctx. When ctx ends before it has started, there is none, and
// no error.
func startUnlessTold(ctx context.Context, opts []vsync.Option) (*vsync.System, error) {
	starting, giveUp := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, giveUp)
	s, err := vsync.Start(starting, opts...)
	switch {
	case err == nil:
		stop()
		return s, nil
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		return nil, nil
	}
	giveUp()
	return nil, err
}

// ready says that the process is part of a system: on stdout, and to the service manager that started it.
func (c *oracleCommand) ready(s *vsync.System, took time.Duration) error {
	st := s.State()
	if c.JSON {
		err := printLine(os.Stdout, map[string]any{
			"ready": true, "system": st.System, "address": st.Address.String(), "transport": st.Transport,
			"seconds": took.Seconds(),
		})
		if err != nil {
			return err
		}
	} else if _, err := fmt.Printf("ready: system %q, %v, after %.0f ms\n", st.System, st.Address,
		took.Seconds()*1000); err != nil {
		return err
	}
	return notify("READY=1\nSTATUS=" + st.Address.String())
}

// notify tells systemd something, when it listens: see sd_notify(3).
func notify(state string) error {
	name := os.Getenv("NOTIFY_SOCKET")
	if name == "" {
		return nil
	}
	if strings.HasPrefix(name, "@") {
		name = "\x00" + name[1:]
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("notify: %w", err)
	}
	_, err = c.Write([]byte(state))
	return errors.Join(err, c.Close())
}
