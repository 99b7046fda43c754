// Package tuning is what the commands khamsin tune do: it turns flags into calls of the packages below tune, and their
// results into text. Only the command line may call it.
package tuning

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/khamsin-io/khamsin/tune"
	"github.com/khamsin-io/khamsin/tune/hostview"
	"github.com/khamsin-io/khamsin/vsync"
)

// Exit statuses of the commands.
const (
	ExitWrong  = 1 // something is to be mended, or was not
	ExitFailed = 2 // the question could not be answered
)

// ExitError is an error that decides the exit status of the program. Without Err nothing is printed.
type ExitError struct {
	Status int
	Err    error
}

// Error returns the text of Err.
func (e *ExitError) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("exit status %d", e.Status)
	}
	return e.Err.Error()
}

// Unwrap returns Err.
func (e *ExitError) Unwrap() error { return e.Err }

func failed(err error) error {
	if err == nil {
		return nil
	}
	return &ExitError{Status: ExitFailed, Err: err}
}

// Goal is what a host is to be set up for.
type Goal struct {
	Profile   string `default:"throughput" enum:"latency,throughput,bulk" help:"What the host is to be good at: latency, throughput or bulk."`
	Iface     string `placeholder:"IF" help:"Network interface; default: that of the configuration, which is the loopback."`
	Transport string `default:"udp" enum:"udp,xdp,rdma,tcp" help:"Transport: udp, xdp, rdma or tcp."`
	Peer      string `placeholder:"ADDR" help:"IPv4 address of another member, to look at the path to it."`
}

// Source is a Goal for this host, or for one of which there are only files.
type Source struct {
	Goal
	Root string `placeholder:"DIR" type:"existingdir" help:"Read the files of another host, copied below DIR, instead of this one's."`
}

// host returns the host to look at.
func (s Source) host() (*hostview.Host, error) {
	if s.Root != "" {
		return hostview.Copy(s.Root), nil
	}
	return hostview.Here()
}

// check looks at a host.
func (g Goal) check(host *hostview.Host) (tune.Report, error) {
	config, err := vsync.ConfigFromEnv()
	if err != nil {
		return tune.Report{}, err
	}
	peer, err := tune.ParsePeer(g.Peer)
	if err != nil {
		return tune.Report{}, err
	}
	return tune.Check(host, tune.Options{
		Profile: tune.Profile(g.Profile), Interface: g.Iface, Transport: g.Transport, Peer: peer, Config: config,
	})
}

func (s Source) report() (tune.Report, error) {
	host, err := s.host()
	if err != nil {
		return tune.Report{}, err
	}
	return s.check(host)
}

// Check prints how a host is set up.
func Check(w io.Writer, s Source, asJSON bool) error {
	report, err := s.report()
	if err != nil {
		return failed(err)
	}
	if asJSON {
		enc := json.NewEncoder(w)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		err = enc.Encode(report)
	} else {
		err = report.WriteTable(w)
	}
	if err != nil {
		return failed(err)
	}
	if report.Wrong() {
		return &ExitError{Status: ExitWrong}
	}
	return nil
}

// Status returns the exit status that an error asks for, and whether the error is to be printed.
func Status(err error) (status int, loud bool) {
	var e *ExitError
	if errors.As(err, &e) {
		return e.Status, e.Err != nil
	}
	return ExitWrong, true
}
