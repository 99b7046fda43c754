package udp

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// noteStrict warns of interfaces that drop what comes by another network than the one to its sender's address, as
// packets do that take the second of several networks.
func (t *Transport) noteStrict() {
	if len(t.cfg.Also) == 0 || t.cfg.family().v6 {
		return
	}
	of := func(name string) int {
		b, err := os.ReadFile(filepath.Join("/proc/sys/net/ipv4/conf", name, "rp_filter"))
		n, fault := strconv.Atoi(strings.TrimSpace(string(b)))
		if err != nil || fault != nil {
			return 0 // not known: packets that are missing will tell
		}
		return n
	}
	for _, name := range append([]string{t.cfg.Interface}, t.cfg.Also...) {
		if max(of("all"), of(name)) == strictFilter {
			t.log.Warn("udp: the system drops what other processes send by a network that their address is not in: "+
				"when one network fails, the others are of no use",
				"do", "sysctl -w net.ipv4.conf.all.rp_filter=2 net.ipv4.conf."+name+".rp_filter=2", "local", t.local)
		}
	}
}

// strictFilter is the value of rp_filter that drops; of an interface's and that of all, the greater one counts.
const strictFilter = 1
