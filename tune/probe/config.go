package probe

import (
	"fmt"
	"strings"

	"github.com/khamsin-io/khamsin/transports/udp"
)

// Bounds of vsync's configuration.
const unstableMin = 16

// TOML returns the best settings as a configuration file for vsync.ConfigFromFile.
func (r Result) TOML() string {
	best := r.Best
	var b strings.Builder
	fmt.Fprintf(&b, "# Written by khamsin tune probe for the profile %s, measured on %s to %s:\n", r.Profile,
		r.Interface, r.To)
	fmt.Fprintf(&b, "# %.1f MB/s, %.3f %% lost, round trip %v (median) and %v (99 %%).\n", best.Goodput/1e6,
		100*best.Loss(),
		best.P50, best.P99)
	if best.Granted < best.Buffer>>10<<10 {
		fmt.Fprintf(&b,
			"# The kernel granted %d bytes of the receive buffer: khamsin tune check says how to raise its limit.\n",
			best.Granted)
	}
	fmt.Fprintf(&b, "interfaces   = [%q]\n", r.Interface)
	fmt.Fprintf(&b, "max_packet   = %d\n", best.Packet)
	fmt.Fprintf(&b, "batch        = %d\n", best.Batch)
	fmt.Fprintf(&b, "max_unstable = %d\n", max(unstableMin, best.Window))
	fmt.Fprintf(&b, "recv_buffer  = %d\n", best.Buffer)
	fmt.Fprintf(&b, "send_buffer  = %d\n", udp.DefaultSendBuffer)
	fmt.Fprintf(&b, "waiting      = %q\n", best.Waiting)
	return b.String()
}
