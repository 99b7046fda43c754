// Package objects is the daemon for bulk objects, khamsin oob serve, and its clients. They talk over a Unix socket in
// JSON-RPC 2.0, one JSON value a line, so that any language can: docs/oob.md describes it. The bytes of objects do not
// travel there: they are files that the daemon reads and writes.
package objects

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/khamsin-io/khamsin/oob"
	"github.com/khamsin-io/khamsin/vsync"
)

// lineMax is the most bytes of a line.
const lineMax = 1 << 20

// version is the JSON-RPC version.
const version = "2.0"

// request is what a client sends.
type request struct {
	Version string          `json:"jsonrpc"`
	ID      json.RawMessage `json:"id,omitempty"`
	Method  string          `json:"method"`
	Params  json.RawMessage `json:"params,omitempty"`
}

// reply is what the daemon sends: the answer to a request, or with a method a notification about it.
type reply struct {
	Version string          `json:"jsonrpc"`
	ID      json.RawMessage `json:"id,omitempty"`
	Result  any             `json:"result,omitempty"`
	Error   *Error          `json:"error,omitempty"`
	Method  string          `json:"method,omitempty"`
	Params  any             `json:"params,omitempty"`
}

// Error is a fault as it travels.
type Error struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
	Data    struct {
		Kind string `json:"kind"` // for programs
	} `json:"data"`
}

// Error returns the message.
func (e *Error) Error() string { return e.Message }

// Codes of JSON-RPC, and the one for everything else.
const (
	codeParse   = -32700
	codeRequest = -32600
	codeMethod  = -32601
	codeParams  = -32602
	codeFailed  = -32000
)

// kinds returns the names by which programs tell faults apart.
func kinds() []struct {
	err  error
	kind string
} {
	return []struct {
		err  error
		kind string
	}{
		{oob.ErrName, "name"}, {oob.ErrExists, "exists"}, {oob.ErrNotFound, "not_found"}, {oob.ErrDeleted, "deleted"},
		{oob.ErrLost, "lost"}, {oob.ErrSuperseded, "superseded"}, {oob.ErrLastCopy, "last_copy"},
		{oob.ErrPartial, "partial"}, {oob.ErrNoSpace, "no_space"}, {oob.ErrClosed, "closed"},
		{vsync.ErrNotMember, "not_member"}, {os.ErrNotExist, "file"}, {os.ErrExist, "file_exists"},
		{os.ErrPermission, "permission"}, {errTimeout, "timeout"},
	}
}

// errTimeout means that what was waited for did not come in time.
var errTimeout = errors.New("timed out") // immutable: an error

// fault makes an error one that travels.
func fault(code int, err error) *Error {
	e := &Error{Code: code, Message: err.Error()}
	e.Data.Kind = "failed"
	for _, k := range kinds() {
		if errors.Is(err, k.err) {
			e.Data.Kind = k.kind
			break
		}
	}
	return e
}

// Params of the methods, and results.
type (
	putParams struct {
		Name string   `json:"name"`
		Path string   `json:"path"` // absolute
		To   []string `json:"to,omitempty"`
	}
	getParams struct {
		Name    string  `json:"name"`
		Path    string  `json:"path"`      // absolute
		Replace bool    `json:"replace"`   // a file that exists
		Timeout float64 `json:"timeout_s"` // 0: a minute
	}
	replicateParams struct {
		Name    string   `json:"name"`
		To      []string `json:"to"`
		NoWait  bool     `json:"no_wait"`
		Timeout float64  `json:"timeout_s"`
	}
	nameParams struct {
		Name string `json:"name"`
	}

	// Status is the result of the method status.
	Status struct {
		System    string    `json:"system"`
		Transport string    `json:"transport"` // of its messages
		Group     string    `json:"group"`
		Self      string    `json:"self"`
		Members   []string  `json:"members"`
		Stats     oob.Stats `json:"stats"`
	}

	// Moved is the result of put, get and replicate.
	Moved struct {
		Name    string  `json:"name"`
		Size    int64   `json:"size"`
		Digest  string  `json:"digest"`
		Holders int     `json:"holders"`
		Seconds float64 `json:"seconds"`
	}

	// Event is what watch tells.
	Event struct {
		Event  string    `json:"event"` // "registered", "changed", "removed"
		Object *oob.Info `json:"object,omitempty"`
		Name   string    `json:"name"`
	}

	// progress tells how far a request is.
	progress struct {
		ID    json.RawMessage `json:"id"`
		Done  int64           `json:"done"`
		Total int64           `json:"total"`
	}
)

// SocketPath returns where the daemon of a name has its socket.
func SocketPath(name string) string { return filepath.Join(vsync.StatusDir(), "oob-"+name+".sock") }

// CheckSocketName tells what is wrong with the name of a daemon.
func CheckSocketName(name string) error {
	if err := oob.CheckName(name); err != nil {
		return fmt.Errorf("name of the daemon: %w", err)
	}
	return nil
}
