package netns

import (
	"fmt"
	"net/netip"
	"os"
	"testing"
)

// AddNetwork joins Bridged hosts by one more network, a bridge of its own beside the first one. Each host gets an
// interface of that name, with the address that it has on the first network but for the third byte, which is net, and
// its IPv6 address as it is.
// Port i of the bridge is called name+"p"+i.
func AddNetwork(tb testing.TB, hosts []*Host, name string, net byte) {
	tb.Helper()
	bridge := hosts[0].Bridge
	bridge.ip("link", "add", name, "type", "bridge", "mcast_snooping", "0")
	bridge.ip("link", "set", name, "up")
	for i, h := range hosts {
		port := PortOf(name, i)
		link(tb, Options{}, end{h.Name, name}, end{bridge.Name, port})
		bridge.ip("link", "set", port, "master", name, "up")
		ip := h.IP.As4()
		ip[2] = net
		h.ip("addr", "add", netip.AddrFrom4(ip).String()+"/24", "dev", name)
		if h.IPv6.IsValid() {
			h.ip("addr", "add", h.IPv6.String()+"/64", "dev", name, "nodad")
		}
		h.ip("link", "set", name, "up")
		h.Do(func() { // a host may answer by another network than it was asked by
			for _, i := range []string{"all", Interface, name} {
				if err := os.WriteFile("/proc/sys/net/ipv4/conf/"+i+"/rp_filter", []byte("2"), 0); err != nil {
					tb.Error(err)
				}
			}
		})
	}
	for _, h := range hosts {
		h.awaitIPv6(name)
	}
}

// PortOf returns the name of a host's port on the bridge of a network that was added.
func PortOf(network string, host int) string { return fmt.Sprint(network, "p", host) }

// Block makes a bridge's host drop what comes in by a port, or with out what would leave by it, without taking the
// port down; the function that it returns ends that.
func (h *Host) Block(port string, out bool) (heal func()) {
	h.tb.Helper()
	side, table := "iifname", "in_"+port
	if out {
		side, table = "oifname", "out_"+port
	}
	h.Run("nft", "add table bridge "+table)
	h.Run("nft", "add chain bridge "+table+" f { type filter hook forward priority 0; }")
	h.Run("nft", "add rule bridge "+table+" f "+side+" "+port+" drop")
	return func() {
		h.tb.Helper()
		h.Run("nft", "delete table bridge "+table)
	}
}
