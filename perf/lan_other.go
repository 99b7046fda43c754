//go:build !linux

package perf

import (
	"errors"
	"net"
	"syscall"
)

const lanInterface = "kprf0"

// errNoNamespaces refuses network namespaces where there are none. immutable: an error
var errNoNamespaces = errors.New("network namespaces need Linux; without --netns members meet on loopback")

type lan struct{}

func newLAN(int) (*lan, error)                { return nil, errNoNamespaces }
func (*lan) plug(int, int) (*netOrder, error) { return nil, errNoNamespaces }

func (*lan) cut(int) error { return errNoNamespaces }

func lanAddress(int) net.IP { return nil }

type netOrder struct {
	Address string
	Loss    float64
}

func (*netOrder) setUp() error { return errNoNamespaces }

func kidAttributes(bool) *syscall.SysProcAttr { return nil }
