package objects

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/khamsin-io/khamsin/oob"
	"github.com/khamsin-io/khamsin/vsync"
)

// Server serves the objects of one group.
type Server struct {
	System *vsync.System
	Group  *vsync.Group
	Store  *oob.Store
	Log    *slog.Logger

	conns sync.WaitGroup
}

// Limits of a connection.
const (
	callsMax    = 64               // requests of a connection at once
	connsMax    = 256              // connections at once
	writeWithin = 10 * time.Second // a client that reads slower is cut off
	defaultWait = time.Minute
	waitMax     = 24 * time.Hour
	beat        = 200 * time.Millisecond // between two progress notifications
)

// Listen opens the socket, which nobody but this user can use. One that a daemon has left behind is replaced; one that
// is served is not.
func Listen(path string) (net.Listener, error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm()&0o022 != 0 && info.Mode()&os.ModeSticky == 0 {
		if err == nil {
			err = fmt.Errorf("others can write to %s, where the socket would be: chmod go-w it", dir)
		}
		return nil, err
	}
	if c, err := net.Dial("unix", path); err == nil {
		return nil, errors.Join(fmt.Errorf("a daemon serves %s already: choose another --name or --socket", path),
			c.Close())
	}
	if info, err := os.Lstat(path); err == nil {
		if info.Mode()&os.ModeSocket == 0 {
			return nil, fmt.Errorf("%s is there and is no socket", path)
		}
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// Serve serves until ctx ends.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer s.conns.Wait()
	defer cancel()
	defer context.AfterFunc(ctx, func() { _ = l.Close() })()
	slots := make(chan struct{}, connsMax)
	for {
		c, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		select {
		case slots <- struct{}{}:
		default:
			s.Log.Warn("too many clients", "limit", connsMax)
			_ = c.Close()
			continue
		}
		s.conns.Go(func() {
			defer func() { <-slots }()
			s.client(ctx, c)
		})
	}
}

// client is one connection.
type client struct {
	server *Server
	conn   net.Conn
	mu     sync.Mutex // of writing
	calls  sync.WaitGroup
	slots  chan struct{}
	cancel context.CancelFunc
}

// client serves a connection. What it asked for and has not got ends with it.
func (s *Server) client(ctx context.Context, conn net.Conn) {
	ctx, cancel := context.WithCancel(ctx)
	c := &client{server: s, conn: conn, slots: make(chan struct{}, callsMax), cancel: cancel}
	defer c.calls.Wait()
	defer func() { _ = conn.Close() }()
	defer cancel()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	lines := bufio.NewScanner(conn)
	lines.Buffer(nil, lineMax)
	for lines.Scan() {
		line := bytes.TrimSpace(lines.Bytes())
		if len(line) == 0 {
			continue
		}
		r, bad := parse(line)
		if bad != nil {
			c.send(reply{ID: r.ID, Error: bad})
			continue
		}
		select {
		case c.slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		c.calls.Go(func() {
			defer func() { <-c.slots }()
			result, err := s.call(ctx, c, &r)
			if len(r.ID) == 0 {
				return // a notification gets no answer
			}
			if err != nil {
				var e *Error
				if !errors.As(err, &e) {
					e = fault(codeFailed, err)
				}
				c.send(reply{ID: r.ID, Error: e})
				return
			}
			c.send(reply{ID: r.ID, Result: result})
		})
	}
	if errors.Is(lines.Err(), bufio.ErrTooLong) {
		c.send(reply{Error: fault(codeRequest, fmt.Errorf("a line of more than %d bytes", lineMax))})
	}
}

// parse reads a request.
func parse(line []byte) (request, *Error) {
	var r request
	if err := json.Unmarshal(line, &r); err != nil {
		return request{}, fault(codeParse, fmt.Errorf("no JSON-RPC request: %w", err))
	}
	if r.Version != version || r.Method == "" {
		return r, fault(codeRequest, fmt.Errorf("no JSON-RPC %s request: it needs jsonrpc and method", version))
	}
	return r, nil
}

// send writes one line. A client that does not read is cut off.
func (c *client) send(r reply) {
	r.Version = version
	b, err := json.Marshal(r)
	if err != nil {
		c.server.Log.Error("reply", "err", err)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	err = c.conn.SetWriteDeadline(time.Now().Add(writeWithin))
	if err == nil {
		_, err = c.conn.Write(append(b, '\n'))
	}
	if err != nil {
		c.cancel()
	}
}

// method is one of the daemon's.
type method func(s *Server, ctx context.Context, c *client, r *request) (any, error)

func methods() map[string]method {
	return map[string]method{
		"status": (*Server).status, "ls": (*Server).list, "put": (*Server).put, "get": (*Server).get,
		"replicate": (*Server).replicate, "rm": (*Server).remove, "watch": (*Server).watch,
	}
}

func (s *Server) call(ctx context.Context, c *client, r *request) (any, error) {
	m, ok := methods()[r.Method]
	if !ok {
		return nil, fault(codeMethod, fmt.Errorf("no method %q", r.Method))
	}
	return m(s, ctx, c, r)
}

// read reads params.
func read(r *request, to any) error {
	if len(r.Params) == 0 {
		return fault(codeParams, fmt.Errorf("%s needs params", r.Method))
	}
	d := json.NewDecoder(bytes.NewReader(r.Params))
	d.DisallowUnknownFields()
	if err := d.Decode(to); err != nil {
		return fault(codeParams, fmt.Errorf("params of %s: %w", r.Method, err))
	}
	return nil
}
