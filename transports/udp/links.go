package udp

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
)

// resolveAlso looks up the further interfaces, and lowers the longest packet to what all of them carry.
func (r *resolved) resolveAlso() error {
	if len(r.Also) == 0 {
		return nil
	}
	switch {
	case r.Filter != nil || r.Beside != nil:
		return errors.New("udp: a filter, or another source, works with one interface only: leave Also empty")
	case r.LocalIP.IsLinkLocalUnicast():
		return fmt.Errorf("udp: %v is an address on one link, and so of no use with several interfaces", r.LocalIP)
	}
	own, err := prefixOf(r.Interface, r.LocalIP)
	if err != nil {
		return err
	}
	names := []string{r.Interface}
	r.indexes = []int32{int32(r.ifIndex)}
	for _, name := range r.Also {
		if slices.Contains(names, name) {
			return fmt.Errorf("udp: interface %q is named twice", name)
		}
		ifi, err := net.InterfaceByName(name)
		if err != nil {
			return fmt.Errorf("udp: interface %q: %w", name, err)
		}
		if has, err := prefixOf(name, r.LocalIP); r.LocalIP.Is6() && (err != nil || has != own) {
			return fmt.Errorf("udp: over IPv6 a process is reached by interface %q only when that has the address %v "+
				"as well (`ip -6 addr add %v dev %s nodad` gives it)", name, own, own, name)
		}
		names, r.indexes = append(names, name), append(r.indexes, int32(ifi.Index))
		r.ifMTU = min(r.ifMTU, ifi.MTU)
	}
	return nil
}

// prefixOf returns an address of an interface with the length of its network, zero when the interface has it not.
func prefixOf(name string, ip netip.Addr) (netip.Prefix, error) {
	ifi, err := net.InterfaceByName(name)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("udp: interface %q: %w", name, err)
	}
	addrs, err := ifi.Addrs()
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("udp: addresses of interface %q: %w", name, err)
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Unmap() == ip {
			return p, nil
		}
	}
	return netip.Prefix{}, nil
}
