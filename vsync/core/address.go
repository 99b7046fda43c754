// Package core holds the identifiers and plain values that every room of vsync shares: addresses, group and view
// identifiers, ranks, sequence numbers, views, multicast flavours. They have no behaviour beyond comparing, printing
// and encoding themselves, and may be used by any goroutine.
package core

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/khamsin-io/khamsin/dataplane"
)

// Address identifies one run of one process in one system. It is comparable, holds no pointer and can be a map key. The
// incarnation is drawn at random when the process starts, so that a process that restarts differs from its former self
// even with the same pid and ports; an Address must not be stored as the name of something that outlives the process.
type Address struct {
	IP          [16]byte // IPv4 in its IPv6-mapped form
	PID         uint32
	Port        uint16 // unicast port; over RDMA the lower half of the queue pair number
	AckPort     uint16 // second port of the printed form: Port+1; over RDMA the upper half (SetEndpoint)
	Incarnation uint64 // never zero in an address of a process
}

// NoAddress is the address of nobody: the zero value.
//
// immutable: a name for the zero value
var NoAddress = Address{}

// AddressLen is the length of an encoded Address in bytes.
const AddressLen = 16 + 4 + 2 + 2 + 8

// errShortAddress is returned for encoded addresses of the wrong length.
var errShortAddress = errors.New("core: an encoded address has 32 bytes")

// IsZero tells whether a is NoAddress.
func (a Address) IsZero() bool { return a == Address{} }

// pairMark is set in the AckPort of a queue pair number whose halves would look like two ports in a row. The number has
// 24 bits, so the bit is free.
const pairMark = 1 << 15

// Endpoint returns where a transport reaches the process.
func (a Address) Endpoint() dataplane.Endpoint {
	e := dataplane.Endpoint{IP: a.IP, Port: uint32(a.Port)}
	if a.AckPort != a.Port+1 {
		e.Port |= uint32(a.AckPort&^pairMark) << 16
	}
	return e
}

// SetEndpoint sets where a transport reaches the process. Ports above 65535 are numbers of queue pairs.
func (a *Address) SetEndpoint(e dataplane.Endpoint) {
	a.IP, a.Port, a.AckPort = e.IP, uint16(e.Port), uint16(e.Port)+1
	if upper := uint16(e.Port >> 16); upper != 0 {
		if a.AckPort = upper; upper == a.Port+1 {
			a.AckPort |= pairMark
		}
	}
}

// String returns the form "(pid:ip/port/port)", which ParseAddress reads back, with "#incarnation" in hexadecimal
// behind the second port. NoAddress prints as "(none)".
func (a Address) String() string {
	if a.IsZero() {
		return "(none)"
	}
	return fmt.Sprintf("(%d:%s/%d/%d#%x)", a.PID, netip.AddrFrom16(a.IP).Unmap(), a.Port, a.AckPort, a.Incarnation)
}

// ParseAddress reads the form that String prints. The incarnation may be missing, which makes it zero.
func ParseAddress(s string) (Address, error) {
	bad := func(what string) (Address, error) {
		return Address{}, fmt.Errorf("core: address %q: %s; the form is (pid:ip/port/port#incarnation)", s, what)
	}
	if s == "(none)" {
		return Address{}, nil
	}
	inner, ok := strings.CutPrefix(s, "(")
	inner, ok2 := strings.CutSuffix(inner, ")")
	if !ok || !ok2 {
		return bad("parentheses missing")
	}
	inner, inc, hasInc := strings.Cut(inner, "#")
	pid, rest, ok := strings.Cut(inner, ":")
	parts := strings.Split(rest, "/")
	if !ok || len(parts) != 3 {
		return bad("wrong number of parts")
	}
	var a Address
	n, err := strconv.ParseUint(pid, 10, 32)
	if err != nil {
		return bad("pid is no 32-bit number")
	}
	a.PID = uint32(n)
	ip, err := netip.ParseAddr(parts[0])
	if err != nil || ip.Zone() != "" {
		return bad("bad IP address")
	}
	a.IP = ip.As16()
	for i, dst := range []*uint16{&a.Port, &a.AckPort} {
		p, err := strconv.ParseUint(parts[i+1], 10, 16)
		if err != nil {
			return bad("bad port")
		}
		*dst = uint16(p)
	}
	if hasInc {
		if a.Incarnation, err = strconv.ParseUint(inc, 16, 64); err != nil {
			return bad("bad incarnation")
		}
	}
	return a, nil
}

// MarshalText returns the printed form.
func (a Address) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText reads the printed form.
func (a *Address) UnmarshalText(b []byte) error {
	v, err := ParseAddress(string(b))
	if err == nil {
		*a = v
	}
	return err
}

// AppendBinary appends the encoded form: IP, pid, ports and incarnation, little-endian, AddressLen bytes. The error is
// always nil.
func (a Address) AppendBinary(b []byte) ([]byte, error) {
	b = append(b, a.IP[:]...)
	b = binary.LittleEndian.AppendUint32(b, a.PID)
	b = binary.LittleEndian.AppendUint16(b, a.Port)
	b = binary.LittleEndian.AppendUint16(b, a.AckPort)
	return binary.LittleEndian.AppendUint64(b, a.Incarnation), nil
}

// MarshalBinary returns the encoded form.
func (a Address) MarshalBinary() ([]byte, error) { return a.AppendBinary(make([]byte, 0, AddressLen)) }

// UnmarshalBinary reads the encoded form, which must have exactly AddressLen bytes.
func (a *Address) UnmarshalBinary(b []byte) error {
	if len(b) != AddressLen {
		return errShortAddress
	}
	copy(a.IP[:], b)
	a.PID = binary.LittleEndian.Uint32(b[16:])
	a.Port = binary.LittleEndian.Uint16(b[20:])
	a.AckPort = binary.LittleEndian.Uint16(b[22:])
	a.Incarnation = binary.LittleEndian.Uint64(b[24:])
	return nil
}

// Compare orders addresses by incarnation, then by their other fields. The order has no meaning; it is the same
// everywhere, which is what choosing one of several needs.
func (a Address) Compare(b Address) int {
	ab, _ := a.MarshalBinary()
	bb, _ := b.MarshalBinary()
	if c := compareUint64(a.Incarnation, b.Incarnation); c != 0 {
		return c
	}
	return strings.Compare(string(ab), string(bb))
}

func compareUint64(a, b uint64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}
