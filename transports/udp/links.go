package udp

import (
	"errors"
	"fmt"
	"net"
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
		names, r.indexes = append(names, name), append(r.indexes, int32(ifi.Index))
		r.ifMTU = min(r.ifMTU, ifi.MTU)
	}
	return nil
}
