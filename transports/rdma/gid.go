package rdma

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// sysfs is where the kernel lists RDMA devices.
const sysfs = "/sys/class/infiniband"

// typeRoCE2 is the kernel's word for an address of RoCE v2. All others belong to InfiniBand or RoCE v1.
const typeRoCE2 = "RoCE v2"

// gid is an address of a port.
type gid struct {
	index int
	addr  netip.Addr // IPv4 in its mapped form
	kind  string
	ndev  string // the network interface; empty with InfiniBand
}

// readGIDs lists the addresses of a device's port, without the empty ones.
func readGIDs(root, device string, port int) ([]gid, error) {
	dir := filepath.Join(root, device, "ports", strconv.Itoa(port))
	entries, err := os.ReadDir(filepath.Join(dir, "gids"))
	if err != nil {
		return nil, fmt.Errorf("rdma: port %d of %s: %w", port, device, err)
	}
	var list []gid
	for _, e := range entries {
		i, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, "gids", e.Name()))
		if err != nil {
			continue // an entry that is not in use
		}
		addr, err := parseGID(string(text))
		if err != nil {
			return nil, fmt.Errorf("rdma: gid %d of %s: %w", i, device, err)
		}
		if addr.IsUnspecified() {
			continue
		}
		attr := func(name string) string { // not there for entries that are not in use, nor with InfiniBand
			b, _ := os.ReadFile(filepath.Join(dir, "gid_attrs", name, e.Name()))
			return strings.TrimSpace(string(b))
		}
		list = append(list, gid{index: i, addr: addr, kind: attr("types"), ndev: attr("ndevs")})
	}
	return list, nil
}

// parseGID reads the kernel's form: eight groups of four hexadecimal digits.
func parseGID(text string) (netip.Addr, error) {
	text = strings.TrimSpace(text)
	b, err := hex.DecodeString(strings.ReplaceAll(text, ":", ""))
	if err != nil || len(b) != 16 {
		return netip.Addr{}, fmt.Errorf("%q is no GID", text)
	}
	return netip.AddrFrom16([16]byte(b)), nil
}

// chooseGID returns the best address for an interface and an IP address, either of which may be left open: RoCE v2 with
// IPv4 first, since only that has multicast, then other RoCE v2 addresses, then InfiniBand's.
func chooseGID(list []gid, ifName string, ip netip.Addr) (gid, error) {
	best, score := gid{}, 0
	for _, g := range list {
		if ifName != "" && g.ndev != "" && g.ndev != ifName ||
			ip.IsValid() && g.ndev != "" && g.addr.Unmap() != ip.Unmap() {
			continue
		}
		s := 1
		switch {
		case g.kind == typeRoCE2 && g.addr.Is4In6():
			s = 3
		case g.kind == typeRoCE2:
			s = 2
		case g.ndev != "":
			continue // RoCE v1 does not carry IP, and nothing that we address by IP could reach it
		}
		if s > score {
			best, score = g, s
		}
	}
	if score == 0 {
		return gid{}, fmt.Errorf("rdma: no GID for interface %q and address %v among %d: give the interface an IPv4 "+
			"address, and see ports/*/gids in %s", ifName, ip, len(list), sysfs)
	}
	return best, nil
}
