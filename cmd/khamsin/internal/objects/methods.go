package objects

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/khamsin-io/khamsin/oob"
	"github.com/khamsin-io/khamsin/vsync"
)

func (s *Server) status(context.Context, *client, *request) (any, error) {
	sys := s.System.State()
	st := Status{
		System: sys.System, Transport: sys.Transport, Group: s.Group.Name(), Self: sys.Address.String(),
		Stats: s.Store.Stats(),
	}
	for _, a := range s.Store.Everybody() {
		st.Members = append(st.Members, a.String())
	}
	return st, nil
}

func (s *Server) list(context.Context, *client, *request) (any, error) {
	list := s.Store.List()
	if list == nil {
		list = []oob.Info{}
	}
	return list, nil
}

// put makes an object of a file.
func (s *Server) put(ctx context.Context, c *client, r *request) (any, error) {
	var p putParams
	if err := read(r, &p); err != nil {
		return nil, err
	}
	began := time.Now()
	var to []vsync.Address
	if len(p.To) > 0 {
		var err error
		if to, err = s.choose(p.To, []vsync.Address{s.System.Address()}); err != nil {
			return nil, err
		}
	}
	o, err := s.load(ctx, c, r, &p)
	if err != nil {
		return nil, err
	}
	defer func() { _ = o.Close() }()
	if err := s.Store.Register(ctx, o); err != nil {
		return nil, err
	}
	if to != nil {
		if err := s.reach(ctx, c, r, s.Store.Replicate(p.Name, to)); err != nil {
			return nil, err
		}
	}
	return s.moved(p.Name, began)
}

// load reads a file into a new object.
func (s *Server) load(ctx context.Context, c *client, r *request, p *putParams) (*oob.Object, error) {
	if !filepath.IsAbs(p.Path) {
		return nil, fault(codeParams, fmt.Errorf("path %q is not absolute", p.Path))
	}
	f, err := os.Open(p.Path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no regular file", p.Path)
	}
	o, err := s.Store.Create(p.Name, info.Size())
	if err != nil {
		return nil, err
	}
	err = pieces(ctx, c, r, info.Size(), func(from, to int64) error {
		_, err := io.ReadFull(f, o.Bytes()[from:to])
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			err = fmt.Errorf("%s got shorter while it was read", p.Path)
		}
		return err
	})
	if err != nil {
		return nil, errors.Join(err, o.Close())
	}
	return o, nil
}

// pieceLen is how many bytes of a file are read or written at once.
const pieceLen = 4 << 20

// pieces calls f for one piece of size bytes after the other, and tells the client how far it is.
func pieces(ctx context.Context, c *client, r *request, size int64, f func(from, to int64) error) error {
	told := time.Now()
	for at := int64(0); at < size; {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		to := min(size, at+pieceLen)
		if err := f(at, to); err != nil {
			return err
		}
		if at = to; time.Since(told) > beat {
			told = time.Now()
			c.progress(r, at, size)
		}
	}
	return nil
}

func (c *client) progress(r *request, done, total int64) {
	if len(r.ID) > 0 {
		c.send(reply{Method: "progress", Params: progress{ID: r.ID, Done: done, Total: total}})
	}
}

// reach waits for a request, and tells the client how far it is.
func (s *Server) reach(ctx context.Context, c *client, r *request, q *oob.Request) error {
	ticker := time.NewTicker(beat)
	defer ticker.Stop()
	for {
		select {
		case <-q.Done():
			return q.Err()
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-ticker.C:
			if p := s.Store.Progress(q.Name()); p.Total > 0 {
				c.progress(r, p.Done, p.Total)
			}
		}
	}
}

func (s *Server) moved(name string, began time.Time) (any, error) {
	i, err := s.Store.Lookup(name)
	return Moved{
		Name: name, Size: i.Size, Digest: i.Digest, Holders: len(i.Holders), Seconds: time.Since(began).Seconds(),
	}, err
}

// within bounds a wait.
func within(ctx context.Context, seconds float64) (context.Context, context.CancelFunc, error) {
	d := defaultWait
	switch {
	case seconds < 0 || seconds > waitMax.Seconds():
		return nil, nil, fault(codeParams, fmt.Errorf("timeout_s is %v, want 0 to %v", seconds, waitMax.Seconds()))
	case seconds > 0:
		d = time.Duration(seconds * float64(time.Second))
	}
	ctx, cancel := context.WithTimeoutCause(ctx, d, fmt.Errorf("%w after %v", errTimeout, d))
	return ctx, cancel, nil
}

// get waits until an object is here, and writes it to a file.
func (s *Server) get(ctx context.Context, c *client, r *request) (any, error) {
	var p getParams
	if err := read(r, &p); err != nil {
		return nil, err
	}
	if !filepath.IsAbs(p.Path) {
		return nil, fault(codeParams, fmt.Errorf("path %q is not absolute", p.Path))
	}
	ctx, cancel, err := within(ctx, p.Timeout)
	if err != nil {
		return nil, err
	}
	defer cancel()
	began := time.Now()
	if _, err := os.Lstat(p.Path); err == nil && !p.Replace {
		return nil, fmt.Errorf("%s: %w: replace it with replace", p.Path, os.ErrExist)
	}
	o, err := s.fetch(ctx, c, r, p.Name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = o.Close() }()
	if err := save(ctx, c, r, o, p.Path); err != nil {
		return nil, err
	}
	return s.moved(p.Name, began)
}

// fetch gets an object here: by a request of its own when this process shall not hold it anyway.
func (s *Server) fetch(ctx context.Context, c *client, r *request, name string) (*oob.Object, error) {
	i, err := s.Store.Lookup(name)
	if err == nil && !i.Local {
		all := append(append([]vsync.Address{}, i.Holders...), append(i.Pending, s.System.Address())...)
		if err := s.reach(ctx, c, r, s.Store.Replicate(name, all)); err != nil && !errors.Is(err, oob.ErrSuperseded) {
			return nil, err
		}
	}
	return s.Store.Fetch(ctx, name)
}

// save writes an object to a file, which appears when it is complete.
func save(ctx context.Context, c *client, r *request, o *oob.Object, path string) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".khamsin-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(f.Name())
		}
	}()
	err = pieces(ctx, c, r, o.Size(), func(from, to int64) error {
		_, err := f.Write(o.Bytes()[from:to])
		return err
	})
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// replicate sets who holds an object.
func (s *Server) replicate(ctx context.Context, c *client, r *request) (any, error) {
	var p replicateParams
	if err := read(r, &p); err != nil {
		return nil, err
	}
	ctx, cancel, err := within(ctx, p.Timeout)
	if err != nil {
		return nil, err
	}
	defer cancel()
	began := time.Now()
	i, err := s.Store.Lookup(p.Name)
	if err != nil {
		return nil, err
	}
	to, err := s.choose(p.To, i.Holders)
	if err != nil {
		return nil, err
	}
	q := s.Store.Replicate(p.Name, to)
	if !p.NoWait {
		if err := s.reach(ctx, c, r, q); err != nil {
			return nil, err
		}
	}
	return s.moved(p.Name, began)
}

func (s *Server) remove(ctx context.Context, _ *client, r *request) (any, error) {
	var p nameParams
	if err := read(r, &p); err != nil {
		return nil, err
	}
	if err := s.Store.Delete(p.Name).Wait(ctx); err != nil {
		return nil, err
	}
	return nameParams{Name: p.Name}, nil
}

// watch tells what happens to objects until the client is gone: first what there is.
func (s *Server) watch(ctx context.Context, c *client, r *request) (any, error) {
	known := make(map[string]oob.Info)
	for {
		changed := s.Store.Changed()
		list := s.Store.List()
		here := make(map[string]bool, len(list))
		for _, i := range list {
			here[i.Name] = true
			old, ok := known[i.Name]
			known[i.Name] = i
			switch {
			case !ok:
				c.send(reply{Method: "event", Params: Event{Event: "registered", Object: &i, Name: i.Name}})
			case fmt.Sprint(old) != fmt.Sprint(i):
				c.send(reply{Method: "event", Params: Event{Event: "changed", Object: &i, Name: i.Name}})
			}
		}
		for name := range known { // in any order
			if !here[name] {
				delete(known, name)
				c.send(reply{Method: "event", Params: Event{Event: "removed", Name: name}})
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// choose returns the members that words mean: "all", a number of copies, the index of a member with a # in front, an IP
// address, or an address as status prints it. Of a number those that hold the object come first, then the oldest.
func (s *Server) choose(words []string, holders []vsync.Address) ([]vsync.Address, error) {
	members := s.Store.Everybody()
	var list []vsync.Address
	add := func(a vsync.Address) {
		for _, b := range list {
			if a == b {
				return
			}
		}
		list = append(list, a)
	}
	for _, w := range words {
		n, err := strconv.Atoi(w)
		switch {
		case w == "all":
			for _, a := range members {
				add(a)
			}
		case err == nil:
			if n < 1 || n > len(members) {
				return nil, fmt.Errorf("%d copies: there are %d members", n, len(members))
			}
			order := append(append([]vsync.Address{}, holders...), members...)
			seen := make(map[vsync.Address]bool)
			for _, a := range order {
				if len(seen) < n && !seen[a] {
					seen[a] = true
					add(a)
				}
			}
		default:
			before := len(list)
			for i, a := range members {
				ip := a.Endpoint().AddrPort().Addr().String()
				if w == a.String() || w == ip || w == "#"+strconv.Itoa(i) || strings.HasPrefix(a.String(), "("+w+":") {
					add(a)
				}
			}
			if len(list) == before {
				return nil,
					fmt.Errorf("%q is no member: say all, a number of copies, an IP address, a process id, or #0 "+
						"to #%d: see khamsin oob status", w, len(members)-1)
			}
		}
	}
	if len(list) == 0 {
		return nil, fault(codeParams, errors.New("to is empty: say all, a number of copies, or members"))
	}
	return list, nil
}
