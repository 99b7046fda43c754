package tune

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/khamsin-io/khamsin/tune/hostview"
)

// fakeKernel answers as it is told.
type fakeKernel struct {
	link     hostview.Link
	linkErr  error
	granted  hostview.Granted
	rings    hostview.Rings
	features map[string]bool
	channels hostview.Channels
	coalesce hostview.Coalesce
	xdp      hostview.XDP
	pathMTU  int
	err      error // of everything but Link
}

func (k *fakeKernel) Link(string) (hostview.Link, error)         { return k.link, k.linkErr }
func (k *fakeKernel) Buffers(int, int) (hostview.Granted, error) { return k.granted, k.err }
func (k *fakeKernel) PathMTU(netip.Addr) (int, error)            { return k.pathMTU, k.err }
func (k *fakeKernel) Rings(string) (hostview.Rings, error)       { return k.rings, k.err }
func (k *fakeKernel) Features(string) (map[string]bool, error)   { return k.features, k.err }
func (k *fakeKernel) Channels(string) (hostview.Channels, error) { return k.channels, k.err }
func (k *fakeKernel) Coalesce(string) (hostview.Coalesce, error) { return k.coalesce, k.err }
func (k *fakeKernel) XDP(int) (hostview.XDP, error)              { return k.xdp, k.err }
func (k *fakeKernel) SetMTU(string, int) error                   { return errors.New("a check changes nothing") }
func (k *fakeKernel) SetRings(string, int, int) error            { return errors.New("a check changes nothing") }
func (k *fakeKernel) MayConfigure() bool                         { return false }

const mebi = 1 << 20

// bareMetal is a server with a good adapter, set up as the library wants it.
func bareMetal() (map[string]string, *fakeKernel) {
	files := map[string]string{
		"/proc/sys/net/core/rmem_max":                  "16777216",
		"/proc/sys/net/core/wmem_max":                  "16777216",
		"/proc/sys/net/core/netdev_max_backlog":        "10000",
		"/proc/sys/net/core/netdev_budget":             "600",
		"/proc/sys/net/core/netdev_budget_usecs":       "8000",
		"/proc/sys/net/core/busy_poll":                 "50",
		"/proc/sys/net/core/busy_read":                 "50",
		"/proc/sys/net/ipv4/udp_mem":                   "575802\t767738\t1151604",
		"/proc/sys/net/ipv4/igmp_max_memberships":      "256",
		"/proc/sys/net/ipv4/igmp_max_msf":              "64",
		"/proc/sys/net/ipv4/ipfrag_high_thresh":        "33554432",
		"/proc/sys/net/ipv4/conf/all/rp_filter":        "0",
		"/proc/sys/net/ipv4/conf/eth1/rp_filter":       "0",
		"/proc/sys/net/ipv4/tcp_rmem":                  "4096 131072 33554432",
		"/proc/sys/net/ipv4/tcp_wmem":                  "4096 131072 33554432",
		"/proc/sys/net/ipv4/tcp_slow_start_after_idle": "0",
		"/proc/sys/vm/swappiness":                      "10",
		"/proc/sys/vm/nr_hugepages":                    "512",
		"/proc/net/softnet_stat":                       "0000c154 00000000 00000000\n0000aa0d 00000000 00000000\n",
		"/proc/thread-self/net/snmp": "Udp: InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors SndbufErrors\n" +
			"Udp: 37745 30 0 41704 0 0\n",
		"/proc/cpuinfo":                                                    "processor\t: 0\nflags\t\t: fpu vme de\n",
		"/proc/self/limits":                                                limits("unlimited", "1048576"),
		"/proc/self/cgroup":                                                "0::/system.slice/app.service\n",
		"/proc/irq/40/effective_affinity_list":                             "0",
		"/proc/irq/41/effective_affinity_list":                             "1",
		"/sys/devices/system/cpu/online":                                   "0-1",
		"/sys/devices/system/cpu/isolated":                                 "1",
		"/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor":            "performance",
		"/sys/devices/system/cpu/cpu1/cpufreq/scaling_governor":            "performance",
		"/sys/devices/system/cpu/cpu0/cpuidle/state0/latency":              "2",
		"/sys/devices/system/cpu/cpu0/cpuidle/state0/name":                 "C1",
		"/sys/devices/system/cpu/cpu0/cpuidle/state0/disable":              "0",
		"/sys/devices/system/clocksource/clocksource0/current_clocksource": "tsc",
		"/sys/kernel/mm/transparent_hugepage/enabled":                      "always [madvise] never",
		"/sys/class/net/eth1/ifindex":                                      "3",
		"/sys/class/net/eth1/queues/rx-0/rps_cpus":                         "0",
		"/sys/class/net/eth1/queues/rx-1/rps_cpus":                         "0",
		"/sys/class/net/eth1/device/msi_irqs/40":                           "msix",
		"/sys/class/net/eth1/device/msi_irqs/41":                           "msix",
		"/sys/class/infiniband/mlx5_0/node_type":                           "1: CA",
		"/sys/fs/cgroup/system.slice/app.service/memory.max":               "max",
		"/sys/fs/cgroup/system.slice/app.service/cpu.max":                  "max 100000",
	}
	files["/proc/thread-self/net/route"] = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n" +
		"eth1\t000000EF\t00000000\t0001\t0\t0\t0\t000000FF\t0\t0\t0\n"
	files["/proc/meminfo"] = "MemTotal: 24684096 kB\nSwapTotal: 0 kB\nHugePages_Total: 512\nHugePages_Free: 512\n"
	files["/proc/stat"] = "cpu  14919 0 5627 59483 289 0 52 0 0 0\ncpu0 7030 0 2616 30512 28 0 9 0 0 0\n"
	return files, &fakeKernel{
		link: hostview.Link{Index: 3, MTU: 9000, Multicast: true, Up: true, Kind: "device", RxQueues: 2,
			TxQueues: 2},
		granted: hostview.Granted{Receive: 16 * mebi, Send: 16 * mebi},
		rings:   hostview.Rings{Rx: 4096, RxMax: 4096, Tx: 4096, TxMax: 4096},
		features: map[string]bool{"rx-gro": true, "tx-generic-segmentation": true, "tx-checksum-ip-generic": true,
			"tx-scatter-gather": true},
		channels: hostview.Channels{Count: 2, Max: 2},
		coalesce: hostview.Coalesce{RxMicros: 30},
		xdp:      hostview.XDP{Basic: true, Redirect: true, ZeroCopy: true},
		pathMTU:  9000,
	}
}

func limits(memlock, files string) string {
	return fmt.Sprintf("Limit                     Soft Limit           Hard Limit           Units\n"+
		"Max open files            %-20s %-20s files\nMax locked memory         %-20s %-20s bytes\n", files, files,
		memlock, memlock)
}

// tree writes files below a fresh root.
func tree(t testing.TB, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for path, text := range files {
		full := filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// with returns files with others put over them; the empty name of a value "gone" takes a file away.
func with(files map[string]string, more map[string]string) map[string]string {
	all := maps.Clone(files)
	for path, text := range more {
		if text == gone {
			for p := range all {
				if p == path || strings.HasPrefix(p, path+"/") {
					delete(all, p)
				}
			}
			continue
		}
		all[path] = text
	}
	return all
}

// gone stands for a file or directory that is not there.
const gone = "(gone)"

func check(t testing.TB, files map[string]string, k *fakeKernel, o Options) Report {
	t.Helper()
	if o.Interface == "" {
		o.Interface = "eth1"
	}
	r, err := Check(hostview.At(tree(t, files), k), o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// find returns the finding of a setting.
func find(t testing.TB, r Report, setting string) Finding {
	t.Helper()
	for _, f := range r.Findings {
		if f.Setting == setting {
			return f
		}
	}
	t.Fatalf("no finding about %q", setting)
	return Finding{}
}
