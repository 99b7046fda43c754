package perf

import (
	"bytes"
	"fmt"
	"os"
	"strconv"

	"github.com/vishvananda/netlink"
)

// wireBytes returns how many bytes this process's network namespace has sent by an interface. It is 0 for the loopback,
// which others use as well.
func wireBytes(name string) uint64 {
	link, err := netlink.LinkByName(name)
	if err != nil || name != lanInterface || link.Attrs().Statistics == nil {
		return 0
	}
	return link.Attrs().Statistics.TxBytes
}

// residentBytes returns how much memory this process has in use, with what it shares.
func residentBytes() int64 {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	fields := bytes.Fields(b)
	if len(fields) < 2 {
		return 0
	}
	pages, err := strconv.ParseInt(string(fields[1]), 10, 64)
	if err != nil {
		return 0
	}
	return pages * int64(os.Getpagesize())
}

// limitLine limits what leaves by an interface, which the caller's namespace must own. Its queue holds 50 ms.
func limitLine(name string, megabits int) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	rate := uint64(megabits) * 1e6 / 8
	burst := uint32(max(16<<10, rate/1000))
	q := &netlink.Tbf{
		QdiscAttrs: netlink.QdiscAttrs{LinkIndex: link.Attrs().Index, Handle: netlink.MakeHandle(1, 0),
			Parent: netlink.HANDLE_ROOT},
		Rate: rate, Buffer: uint32(1e9 * float64(burst) / float64(rate) / 64), Limit: uint32(rate/20) + burst,
	}
	if err := netlink.QdiscReplace(q); err != nil {
		return fmt.Errorf("limit %s to %d Mbit/s: %w", name, megabits, err)
	}
	return nil
}
