package oob

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/khamsin-io/khamsin/oob/internal/chain"
)

// accept takes the links of chains that other processes make.
func (s *Store) accept() {
	for {
		c, err := s.listener.Accept()
		if err != nil {
			if s.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			s.log.Warn("objects: accept", "err", err)
			select {
			case <-s.ctx.Done():
			case <-time.After(retryAfter):
			}
			continue
		}
		if s.greeters.Add(1) > greetersMax {
			s.greeters.Add(-1)
			s.links.Refused.Add(1)
			_ = c.Close()
			continue
		}
		s.all.Go(func() {
			defer s.greeters.Add(-1)
			defer func() { _ = c.Close() }()
			defer context.AfterFunc(s.ctx, func() { _ = c.Close() })()
			if err := s.link(c); err != nil && s.ctx.Err() == nil {
				s.links.Refused.Add(1)
				s.log.Debug("objects: link", "from", c.RemoteAddr(), "err", err)
			}
		})
	}
}

// greetersMax is how many connections are served at once.
const greetersMax = 1024

// sessionPatience is how long a link waits until this process, too, knows of its transfer.
const sessionPatience = 5 * time.Second

func (s *Store) link(c net.Conn) error {
	g, err := chain.ReadGreeting(c)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(s.ctx, sessionPatience)
	defer cancel()
	x, err := s.await(ctx, sessionKey{transfer: g.Transfer, role: chainReceive})
	if err != nil {
		return err
	}
	defer context.AfterFunc(x.ctx, func() { _ = c.Close() })()
	return s.settings.do(func() error {
		return x.incoming.Serve(c, g, func() { s.have(x) })
	})
}

// await waits until there is a session, and it is ready.
func (s *Store) await(ctx context.Context, key sessionKey) (*session, error) {
	for {
		s.mu.Lock()
		x, changed := s.sessions[key], s.changed
		s.mu.Unlock()
		ready := changed
		if x != nil {
			ready = x.ready
		}
		select {
		case <-ready:
			if x != nil {
				return x, nil
			}
		case <-ctx.Done():
			return nil, fmt.Errorf("no transfer %d here: %w", key.transfer, context.Cause(ctx))
		}
	}
}
