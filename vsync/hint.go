package vsync

import (
	"net"
	"slices"
)

// hintLoopback says, once for a system, that nothing leaves the host though it could: who starts processes on several
// hosts without naming an interface would else wonder why they do not find each other.
func (s *System) hintLoopback() {
	names, err := s.config.interfaces()
	if s.caps.Name == memName || err != nil || !slices.Equal(names, []string{loopback}) {
		return
	}
	if others := otherInterfaces(); len(others) > 0 {
		s.log.Info("talking on this host only; to talk to other hosts, name an interface "+
			"(ISIS_NETWORK_INTERFACES, or WithInterfaces)", "interfaces", others)
	}
}

// otherInterfaces returns the names of interfaces, beside loopbacks, that are up and have an address.
func otherInterfaces() (names []string) {
	list, err := net.Interfaces()
	if err != nil {
		return nil
	}
	for _, i := range list {
		if i.Flags&net.FlagLoopback != 0 || i.Flags&net.FlagUp == 0 {
			continue
		}
		if addrs, err := i.Addrs(); err == nil && len(addrs) > 0 {
			names = append(names, i.Name)
		}
	}
	return names
}
