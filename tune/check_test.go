package tune

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/khamsin-io/khamsin/tune/hostview"
	"github.com/khamsin-io/khamsin/vsync"
)

// A host that is set up as the library wants it has nothing wrong, for any profile and transport.
func TestGoodHost(t *testing.T) {
	files, k := bareMetal()
	for _, profile := range []Profile{Latency, Throughput, Bulk} {
		for _, transport := range []string{"udp", "xdp", "rdma", "tcp"} {
			k.coalesce = hostview.Coalesce{RxMicros: 30}
			if profile == Latency {
				k.coalesce.RxMicros = 5
			}
			r := check(t, files, k, Options{Profile: profile, Transport: transport,
				Peer: netip.MustParseAddr("10.1.2.3")})
			for _, f := range r.Findings {
				if f.Severity != OK {
					t.Errorf("%s, %s: %+v", profile, transport, f)
				}
			}
			if len(r.Findings) < 30 {
				t.Errorf("%s, %s: only %d findings", profile, transport, len(r.Findings))
			}
		}
	}
}

// Each case breaks one thing on the good host: that one finding is wrong then, and no other.
//
// rows: TUN-01, TUN-02, TUN-04, TUN-05, TUN-10, TUN-12
func TestEachRule(t *testing.T) {
	setting := func(path, value string) func(map[string]string, *fakeKernel) {
		return func(f map[string]string, _ *fakeKernel) { f[path] = value }
	}
	kernel := func(change func(k *fakeKernel)) func(map[string]string, *fakeKernel) {
		return func(_ map[string]string, k *fakeKernel) { change(k) }
	}
	for _, c := range []struct {
		setting  string
		breaks   func(map[string]string, *fakeKernel)
		o        Options
		severity Severity
		found    string
		fix      string
	}{
		{"net.core.rmem_max", setting("/proc/sys/net/core/rmem_max", "212992"), Options{}, High, "212992",
			"sysctl -w net.core.rmem_max=4194304"},
		{"net.core.wmem_max", setting("/proc/sys/net/core/wmem_max", "212992"), Options{}, Medium, "212992",
			"sysctl -w net.core.wmem_max=2097152"},
		{"SO_RCVBUF granted", kernel(func(k *fakeKernel) { k.granted.Receive = 212992 }), Options{}, High, "212992",
			"raise net.core.rmem_max"},
		{"SO_SNDBUF granted", kernel(func(k *fakeKernel) { k.granted.Send = 212992 }), Options{}, Medium, "212992",
			"raise net.core.wmem_max"},
		{"net.ipv4.udp_mem", setting("/proc/sys/net/ipv4/udp_mem", "1000 2000 3000"), Options{}, Medium,
			"[1000 2000 3000]", "sysctl -w 'net.ipv4.udp_mem=1000 "},
		{"net.core.netdev_max_backlog", setting("/proc/sys/net/core/netdev_max_backlog", "1000"), Options{}, Medium,
			"1000", "sysctl -w net.core.netdev_max_backlog=4096"},
		{"net.core.netdev_budget", setting("/proc/sys/net/core/netdev_budget", "300"), Options{}, Low, "300", "=600"},
		{"net.core.netdev_budget_usecs", setting("/proc/sys/net/core/netdev_budget_usecs", "20"), Options{}, Low,
			"20", "=2000"},
		{"net.ipv4.igmp_max_memberships", setting("/proc/sys/net/ipv4/igmp_max_memberships", "20"), Options{}, Low,
			"20", "=64"},
		{"net.ipv4.igmp_max_msf", setting("/proc/sys/net/ipv4/igmp_max_msf", "1"), Options{}, Low, "1", "=10"},
		{"net.ipv4.conf.eth1.rp_filter", setting("/proc/sys/net/ipv4/conf/all/rp_filter", "1"), Options{}, Medium,
			"0, and 1 for all", "sysctl -w net.ipv4.conf.eth1.rp_filter=2"},
		{"multicast", kernel(func(k *fakeKernel) { k.link.Multicast = false }), Options{}, High, "not able",
			"ip link set dev eth1 up multicast on"},
		{"packet, MTU, buffer", kernel(func(k *fakeKernel) { k.link.MTU = 1500 }),
			Options{Config: packet(1473)}, High, "1473, 1500, 4194304", "ISIS_MAXMSGLEN=1472"},
		{"path MTU to 10.1.2.3", kernel(func(k *fakeKernel) { k.pathMTU = 1400 }),
			Options{Peer: netip.MustParseAddr("10.1.2.3")}, High, "1400", "ISIS_MAXMSGLEN=1372"},
		{"MTU for bulk", kernel(func(k *fakeKernel) { k.link.MTU = 1500 }), Options{Profile: Bulk}, Low, "1500",
			"ip link set dev eth1 mtu 9000"},
		{"net.ipv4.tcp_rmem", setting("/proc/sys/net/ipv4/tcp_rmem", "4096 131072 262144"), Options{Transport: "tcp"},
			Medium, "[4096 131072 262144]", "'net.ipv4.tcp_rmem=4096 131072 4194304'"},
		{"net.ipv4.tcp_slow_start_after_idle", setting("/proc/sys/net/ipv4/tcp_slow_start_after_idle", "1"),
			Options{Transport: "tcp"}, Low, "1", "=0"},
		{"rings", kernel(func(k *fakeKernel) { k.rings.Rx, k.rings.Tx = 256, 256 }), Options{}, Medium,
			"rx 256, tx 256",
			"ethtool -G eth1 rx 4096 tx 4096"},
		{"GRO", kernel(func(k *fakeKernel) { k.features["rx-gro"] = false }), Options{}, Medium, "off",
			"ethtool -K eth1 gro on"},
		{"receive queues", setting("/sys/class/net/eth1/queues/rx-1", gone), Options{}, Low, "1",
			"echo 3 > /sys/class/net/eth1/queues/rx-0/rps_cpus"},
		{"interrupt affinity", setting("/proc/irq/41/effective_affinity_list", "0"), Options{}, Low,
			"2 interrupts on 1 sets of processors", "irqbalance"},
		{"interrupt coalescing", kernel(func(k *fakeKernel) { k.coalesce.RxMicros = 100 }), Options{Profile: Latency},
			Low,
			"100 µs", "ethtool -C eth1 adaptive-rx off rx-usecs 10"},
		{"CPU governor", setting("/sys/devices/system/cpu/cpu1/cpufreq/scaling_governor", "powersave"), Options{}, Low,
			"performance, powersave", "cpupower"},
		{"CPU idle states", setting("/sys/devices/system/cpu/cpu0/cpuidle/state0/latency", "133"),
			Options{Profile: Latency}, Low, "C1, 133 µs", "cpupower idle-set -D 50"},
		{"net.core.busy_poll", setting("/proc/sys/net/core/busy_poll", "0"), Options{Profile: Latency}, Low, "0",
			"=50"},
		{"clock source", setting("/sys/devices/system/clocksource/clocksource0/current_clocksource", "hpet"), Options{},
			Medium, "hpet", "clocksource=tsc"},
		{"steal time", setting("/proc/stat", "cpu  90 0 0 0 0 0 0 10 0 0"), Options{}, Medium,
			"10.00 % since the host started", "a machine"},
		{"vm.nr_hugepages", setting("/proc/meminfo", "SwapTotal: 0 kB\nHugePages_Free: 0\n"), Options{Profile: Bulk},
			Low,
			"512, 0 free", "sysctl -w vm.nr_hugepages="},
		{"transparent huge pages", setting("/sys/kernel/mm/transparent_hugepage/enabled", "[always] madvise never"),
			Options{Profile: Latency}, Low, "always", "echo madvise > "},
		{"vm.swappiness", setting("/proc/sys/vm/swappiness", "60"), Options{}, OK, "60, no swap", ""},
		{"limit of locked memory", setting("/proc/self/limits", limits("65536", "4096")), Options{Transport: "rdma"},
			High,
			"65536", "LimitMEMLOCK="},
		{"limit of open files", setting("/proc/self/limits", limits("unlimited", "256")), Options{}, Medium, "256",
			"LimitNOFILE="},
		{"memory limit of the container", setting("/sys/fs/cgroup/system.slice/app.service/memory.max", "67108864"),
			Options{}, High, "67108864", "raise"},
		{"CPU limit of the container", setting("/sys/fs/cgroup/system.slice/app.service/cpu.max", "150000 100000"),
			Options{}, Medium, "1.50 processors", "whole processors"},
		{"XDP", kernel(func(k *fakeKernel) { k.xdp = hostview.XDP{} }), Options{Transport: "xdp"}, High,
			"none in the driver", "another adapter"},
		{"RDMA devices", setting("/sys/class/infiniband", gone), Options{Transport: "rdma"}, High, "none",
			"rdma link add"},
	} {
		files, k := bareMetal()
		change := map[string]string{}
		c.breaks(change, k)
		if c.o.Profile == Latency && k.coalesce.RxMicros == 30 {
			k.coalesce.RxMicros = 5
		}
		r := check(t, with(files, change), k, c.o)
		f := find(t, r, c.setting)
		if f.Severity != c.severity || f.Found != c.found || !strings.Contains(f.Fix, c.fix) || f.Why == "" ||
			f.Wanted == "" {
			t.Errorf("%s: %+v", c.setting, f)
		}
		for _, other := range r.Findings {
			if other.Setting != c.setting && other.Severity.Wrong() {
				t.Errorf("%s made %s wrong: %+v", c.setting, other.Setting, other)
			}
		}
	}
}

func packet(bytes int) vsync.Config {
	c := vsync.DefaultConfig()
	c.MaxPacket = bytes
	return c
}

// Kinds of hosts where much cannot be read: what cannot is unknown with a reason, and nothing is made up.
func TestKindsOfHosts(t *testing.T) {
	refused := errors.New("operation not permitted")
	for _, c := range []struct {
		name    string
		change  map[string]string
		kernel  func(k *fakeKernel)
		wrong   []string
		unknown []string
	}{
		{"virtual machine", map[string]string{
			"/sys/devices/system/cpu/cpu0/cpufreq": gone, "/sys/devices/system/cpu/cpu1/cpufreq": gone,
			"/sys/devices/system/cpu/cpu0/cpuidle": gone, "/sys/class/net/eth1/device": gone,
			"/proc/cpuinfo": "flags : fpu hypervisor\n", "/sys/class/dmi/id/sys_vendor": "QEMU",
		}, func(*fakeKernel) {}, nil, []string{"CPU governor", "CPU idle states", "interrupt affinity"}},
		{"container", map[string]string{
			"/proc/sys/net/core/netdev_max_backlog": gone, "/proc/sys/net/core/netdev_budget": gone,
			"/proc/sys/net/core/netdev_budget_usecs": gone, "/proc/sys/net/ipv4/udp_mem": gone,
			"/proc/sys/net/core/rmem_max": "212992", "/sys/class/net/eth1/ifindex": "7",
			"/proc/self/cgroup": "0::/\n", "/sys/fs/cgroup/memory.max": "33554432",
			"/sys/fs/cgroup/cpu.max": "50000 100000",
		}, func(k *fakeKernel) { k.granted.Receive = 212992 },
			[]string{"net.core.rmem_max", "SO_RCVBUF granted", "memory limit of the container",
				"CPU limit of the container"},
			[]string{"net.core.netdev_max_backlog", "net.core.netdev_budget", "net.ipv4.udp_mem", "receive queues",
				"interrupt affinity"}},
		{"control groups of version 1", map[string]string{
			"/proc/self/cgroup":                             "4:memory:/a\n1:cpu,cpuacct:/a\n0::/\n",
			"/sys/fs/cgroup/memory/a/memory.limit_in_bytes": "1000", "/sys/fs/cgroup/cpu/a/cpu.cfs_quota_us": "10000",
			"/sys/fs/cgroup/cpu/a/cpu.cfs_period_us": "100000",
		}, func(*fakeKernel) {}, []string{"memory limit of the container", "CPU limit of the container"}, nil},
		{"old kernel", map[string]string{
			"/proc/sys/net/core/netdev_budget_usecs": gone, "/proc/sys/net/ipv4/igmp_max_msf": gone,
			"/proc/self/cgroup": gone,
			"/proc/thread-self": gone, "/proc/meminfo": "MemTotal: 1 kB\n",
		}, func(k *fakeKernel) { k.err = errors.ErrUnsupported }, nil,
			[]string{"net.core.netdev_budget_usecs", "net.ipv4.igmp_max_msf", "memory limit of the container",
				"CPU limit of the container", "UDP RcvbufErrors", "multicast route", "vm.nr_hugepages",
				"vm.swappiness", "XDP",
				"rings", "GRO", "interrupt coalescing", "SO_RCVBUF granted"}},
		{"no permission", nil, func(k *fakeKernel) { k.err = refused }, nil,
			[]string{"SO_RCVBUF granted", "SO_SNDBUF granted", "rings", "XDP"}},
		{"copied files", nil, func(k *fakeKernel) { k.err, k.linkErr = hostview.ErrForeign, hostview.ErrForeign }, nil,
			[]string{"interface eth1", "multicast", "packet, MTU, buffer", "SO_RCVBUF granted", "XDP"}},
	} {
		files, k := bareMetal()
		c.kernel(k)
		r := check(t, with(files, c.change), k, Options{})
		for _, f := range r.Findings {
			switch {
			case f.Severity == Unknown && (f.Why == "" || f.Found != "unknown" || f.Fix != ""):
				t.Errorf("%s: unknown without a reason, or with a guess: %+v", c.name, f)
			case f.Severity.Wrong() && !slices.Contains(c.wrong, f.Setting):
				t.Errorf("%s: %s is called wrong: %+v", c.name, f.Setting, f)
			}
		}
		for _, name := range c.wrong {
			if f := find(t, r, name); !f.Severity.Wrong() {
				t.Errorf("%s: %s is not called wrong: %+v", c.name, name, f)
			}
		}
		for _, name := range c.unknown {
			if f := find(t, r, name); f.Severity != Unknown {
				t.Errorf("%s: %s should be unknown: %+v", c.name, name, f)
			}
		}
	}
}

// In a network namespace of its own rmem_max can be read and not changed: the fix says where it can.
func TestLimitOfTheHostFromInside(t *testing.T) {
	files, k := bareMetal()
	r := check(t, with(files, map[string]string{
		"/proc/sys/net/core/netdev_max_backlog": gone, "/proc/sys/net/core/rmem_max": "212992",
	}), k, Options{})
	if f := find(t, r, "net.core.rmem_max"); f.Changes != nil || !strings.HasPrefix(f.Fix, "on the host") {
		t.Errorf("%+v", f)
	}
}

// Files that may not be read are unknown, and say so.
func TestUnreadableFiles(t *testing.T) {
	if os.Getuid() != 0 {
		t.Log("as another user than root the files are made unreadable by their mode alone")
	}
	files, k := bareMetal()
	root := tree(t, files)
	if err := os.Chmod(root+"/proc/sys/net/core/rmem_max", 0); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(root+"/proc/sys/net/core", 0o755); err != nil {
		t.Fatal(err)
	}
	done := make(chan Report)
	go func() {
		runtime.LockOSThread() // never unlocked: this thread has lost its rights and ends here
		const nobody = 65534
		unix.SetfsuidRetUid(nobody)
		for _, path := range []string{root, root + "/proc"} {
			_ = os.Chmod(path, 0o755)
		}
		r, err := Check(hostview.At(root, k), Options{Interface: "eth1"})
		if err != nil && !errors.Is(err, ErrNothingRead) {
			t.Error(err)
		}
		done <- r
	}()
	r := <-done
	for _, f := range r.Findings {
		if f.Setting == "net.core.rmem_max" && (f.Severity != Unknown || !strings.Contains(f.Why,
			"permission denied")) {
			t.Errorf("%+v", f)
		}
	}
}

// Every file in turn holds garbage: no panic, and what depends on it is unknown.
func TestGarbage(t *testing.T) {
	files, k := bareMetal()
	free := []string{ // whose text is a name, any text at all, or whose file's name says everything
		"/sys/class/infiniband/mlx5_0/node_type", "/sys/class/net/eth1/device/msi_irqs/40",
		"/sys/class/net/eth1/device/msi_irqs/41", "/sys/devices/system/cpu/cpu0/cpuidle/state0/name",
		"/sys/devices/system/cpu/cpu0/cpuidle/state0/disable",
		"/sys/class/net/eth1/queues/rx-0/rps_cpus", "/sys/class/net/eth1/queues/rx-1/rps_cpus",
		"/proc/sys/net/ipv4/ipfrag_high_thresh",
	}
	host := hostview.At(tree(t, files), k)
	for path, good := range files {
		for _, junk := range []string{"", "x", "-", "99999999999999999999999", "\x00\xff", "1 2 3 4 5 6 7 8 9", "[",
			":", "0-"} {
			unknown := false
			if err := host.Write(path, junk); err != nil {
				t.Fatal(err)
			}
			for _, transport := range []string{"udp", "tcp"} {
				r, err := Check(host, Options{Profile: Latency, Transport: transport, Interface: "eth1"})
				if err != nil {
					t.Fatal(err)
				}
				unknown = unknown ||
					slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Severity == Unknown })
			}
			if junk == "\x00\xff" && !unknown && !slices.Contains(free, path) {
				t.Errorf("%s holds garbage, and nothing is unknown", path)
			}
		}
		if err := host.Write(path, good); err != nil {
			t.Fatal(err)
		}
	}
}

func TestCannotCheck(t *testing.T) {
	files, k := bareMetal()
	if _, err := Check(hostview.At(t.TempDir(), k), Options{Interface: "eth1"}); !errors.Is(err, ErrNothingRead) {
		t.Errorf("empty tree: %v", err)
	}
	root := tree(t, files)
	for _, o := range []Options{
		{Interface: "../../etc"}, {Interface: "a b"}, {Interface: strings.Repeat("x", 16)}, {Profile: "fast"},
		{Transport: "pigeon"},
	} {
		if _, err := Check(hostview.At(root, k), o); err == nil {
			t.Errorf("%+v accepted", o)
		}
	}
	k.linkErr = errors.New("no such interface")
	if _, err := Check(hostview.At(root, k), Options{Interface: "eth9"}); err == nil {
		t.Error("an interface that is not there was checked")
	}
}

// The report is sorted by what the manual blames first: loss, then small packets, then scheduling.
//
// rows: TUN-14
func TestOrderOfTheReport(t *testing.T) {
	files, k := bareMetal()
	k.features["rx-gro"] = false
	r := check(t, with(files, map[string]string{
		"/proc/sys/net/core/rmem_max": "1", "/proc/sys/net/core/netdev_budget": "1",
		"/proc/sys/net/ipv4/igmp_max_msf":                                  gone,
		"/sys/devices/system/clocksource/clocksource0/current_clocksource": "hpet",
	}), k, Options{})
	var order []string
	for _, f := range r.Findings {
		if f.Severity.Wrong() || f.Severity == Unknown {
			order = append(order, f.Setting)
		}
	}
	want := []string{"net.core.rmem_max", "net.core.netdev_budget", "GRO", "clock source", "net.ipv4.igmp_max_msf"}
	if !slices.Equal(order, want) {
		t.Errorf("%v, want %v", order, want)
	}
	var table bytes.Buffer
	if err := r.WriteTable(&table); err != nil {
		t.Fatal(err)
	}
	last := -1
	for _, heading := range []string{"WRONG: LOSS", "WRONG: WORK PER PACKET", "WRONG: SCHEDULING", "UNKNOWN", "RIGHT"} {
		at := strings.Index(table.String(), heading)
		if at <= last {
			t.Errorf("heading %q at %d, after %d", heading, at, last)
		}
		last = at
	}
}

// The form that other programs read: an object with findings of exactly six fields.
func TestJSON(t *testing.T) {
	files, k := bareMetal()
	text, err := json.Marshal(check(t, files, k, Options{}))
	if err != nil {
		t.Fatal(err)
	}
	var got struct{ Findings []map[string]string }
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	for _, f := range got.Findings {
		if len(f) != 6 {
			t.Errorf("%v", f)
		}
		for _, field := range []string{"setting", "found", "wanted", "severity", "why", "fix"} {
			if _, ok := f[field]; !ok {
				t.Errorf("%v has no %s", f, field)
			}
		}
	}
}

// The guide explains every setting that a report can name.
func TestGuideKnowsEverySetting(t *testing.T) {
	text, err := os.ReadFile("../docs/tune.md")
	if err != nil {
		t.Fatal(err)
	}
	guide := string(text)
	files, k := bareMetal()
	k.link.MTU = 1500
	for _, profile := range []Profile{Latency, Throughput, Bulk} {
		for _, transport := range []string{"udp", "xdp", "rdma", "tcp"} {
			o := Options{Profile: profile, Transport: transport, Peer: netip.MustParseAddr("10.1.2.3"),
				Config: packet(8192)}
			for _, f := range check(t, files, k, o).Findings {
				name := strings.NewReplacer("eth1", "IF", "10.1.2.3", "ADDR").Replace(f.Setting)
				if !strings.Contains(guide, "`"+name+"`") {
					t.Errorf("docs/tune.md does not explain `%s`", name)
				}
			}
		}
	}
}

// Counters of the kernel are shown, so that they can be compared with the library's own.
//
// rows: OBS-12
func TestKernelCountersAreShown(t *testing.T) {
	files, k := bareMetal()
	r := check(t, with(files,
		map[string]string{"/proc/thread-self/net/snmp": "Udp: InDatagrams RcvbufErrors\nUdp: 10 7\n"}),
		k, Options{})
	if f := find(t, r, "UDP RcvbufErrors"); f.Found != "7 lost, 10 received" || f.Severity != Note {
		t.Errorf("%+v", f)
	}
}

func FuzzCheck(f *testing.F) {
	files, _ := bareMetal()
	for path, text := range files {
		f.Add(path, text)
	}
	_, k := bareMetal()
	host := hostview.At(tree(f, files), k)
	f.Fuzz(func(t *testing.T, path, text string) {
		good, ok := files[path]
		if !ok {
			return
		}
		if err := host.Write(path, text); err != nil {
			t.Fatal(err)
		}
		if _, err := Check(host, Options{Interface: "eth1", Profile: Latency, Transport: "tcp"}); err != nil {
			t.Error(err)
		}
		if err := host.Write(path, good); err != nil {
			t.Fatal(err)
		}
	})
}
