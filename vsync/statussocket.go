package vsync

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// statusVariable turns the status socket on from the environment: a directory, or 1 for the usual one.
const statusVariable = "KHAMSIN_STATUS"

// statusWithin bounds how long a reader of the status socket may take.
const statusWithin = 2 * time.Second

// statusSuffix is what names of status sockets end with.
const statusSuffix = ".khamsin"

// StatusDir returns the directory where processes of this user put their status sockets: khamsin in $XDG_RUNTIME_DIR,
// or in /run for root, or else a directory of the user's in the one for temporary files.
func StatusDir() string {
	switch dir := os.Getenv("XDG_RUNTIME_DIR"); {
	case dir != "":
		return filepath.Join(dir, "khamsin")
	case os.Geteuid() == 0:
		return "/run/khamsin"
	}
	return filepath.Join(os.TempDir(), "khamsin-"+strconv.Itoa(os.Geteuid()))
}

// statusSocket lets programs of the same user on this host read the system's state.
type statusSocket struct {
	listener net.Listener
	done     chan struct{}
}

// openStatus opens the socket in a directory, which it makes when it is not there.
func (s *System) openStatus(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("status: %w", err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("status: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("status: %s is open to others than its owner: chmod 700 it", dir)
	}
	path := filepath.Join(dir, fmt.Sprintf("%d-%x%s", s.self.PID, s.self.Incarnation, statusSuffix))
	l, err := net.Listen("unix", path) // removes the file when it is closed
	if err != nil {
		return fmt.Errorf("status: %w", err)
	}
	s.status = &statusSocket{listener: l, done: make(chan struct{})}
	go s.serveStatus()
	return nil
}

// serveStatus writes the state to whoever connects, one after the other.
func (s *System) serveStatus() {
	defer close(s.status.done)
	for {
		c, err := s.status.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // out of descriptors: later
			time.Sleep(statusWithin / 20)
			continue
		}
		_ = c.SetDeadline(time.Now().Add(statusWithin))
		_ = json.NewEncoder(c).Encode(s.State()) // who goes away misses it
		_ = c.Close()
	}
}

func (s *System) closeStatus() {
	if s.status != nil {
		_ = s.status.listener.Close()
		<-s.status.done
	}
}

// StatusSockets returns the paths of the status sockets in a directory; none when there is no such directory.
func StatusSockets(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var list []string
	for _, e := range entries {
		if filepath.Ext(e.Name()) == statusSuffix {
			list = append(list, filepath.Join(dir, e.Name()))
		}
	}
	return list, nil
}

// statusDir returns where the status socket goes, empty for nowhere.
func (c *Config) statusDir() string {
	if c.StatusDir != "" {
		return c.StatusDir
	}
	switch dir := os.Getenv(statusVariable); dir {
	case "", "0":
		return ""
	case "1":
		return StatusDir()
	default:
		return dir
	}
}
