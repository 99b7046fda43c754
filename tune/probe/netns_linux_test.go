package probe

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
)

const (
	insideEnv = "KHAMSIN_TEST_NETWORK" // names the part that this copy of the test's process plays
	vethHere  = "ktun0"
	vethThere = "ktun1"
	netHere   = "10.77.0.1"
	netThere  = "10.77.0.2"
)

// again starts a copy of this process for one test, in a network of its own.
func again(t *testing.T, test, part string) *exec.Cmd {
	t.Helper()
	c := exec.Command(os.Args[0], "-test.run=^"+test+"$", "-test.v")
	c.Env = append(os.Environ(), insideEnv+"="+part)
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	return c
}

func command(t *testing.T, line string) {
	t.Helper()
	words := strings.Fields(line)
	if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", line, err, out)
	}
}

// TestFarHost is no test of its own: it is the other host of TestBetweenHosts. It answers from when a line comes on its
// input until that ends.
func TestFarHost(t *testing.T) {
	if os.Getenv(insideEnv) != "far" {
		return
	}
	in := bufio.NewReader(os.Stdin)
	if _, err := in.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	command(t, "ip link set "+vethThere+" up")
	command(t, "ip addr add "+netThere+"/24 dev "+vethThere)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		_, _ = io.Copy(io.Discard, in)
		cancel()
	}()
	if err := Answer(ctx, vethThere, 0, func(addr string) { fmt.Println("answering", addr) }); err != nil {
		t.Error(err)
	}
}

// Between two hosts on an Ethernet that loses three IP packets in a hundred, long packets are lost far more often than
// those that fit a frame, since one lost fragment is enough; the probe shows it and chooses one that fits.
//
// rows: TUN-10, TUN-11, TUN-12
func TestBetweenHosts(t *testing.T) {
	required := slices.Contains(strings.Split(os.Getenv("KHAMSIN_REQUIRE"), ","), "netns")
	if os.Getenv(insideEnv) == "near" {
		betweenHosts(t)
		return
	}
	if _, err := exec.LookPath("nft"); err != nil && !required {
		t.Skip("no nft")
	}
	out, err := again(t, t.Name(), "near").CombinedOutput()
	if errors.Is(err, syscall.EPERM) && !required {
		t.Skipf("no network namespace: %v", err)
	}
	t.Logf("%s", out)
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Errorf("inside: %v", err)
	}
}

// farHost starts the other host and returns where it answers.
func farHost(t *testing.T) netip.AddrPort {
	t.Helper()
	far := again(t, "TestFarHost", "far")
	in, err := far.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := far.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := far.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(in.Close(), far.Wait()); err != nil {
			t.Errorf("far host: %v", err)
		}
	})
	attrs := netlink.NewLinkAttrs()
	attrs.Name = vethHere
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: vethThere}); err != nil {
		t.Fatal(err)
	}
	there, err := netlink.LinkByName(vethThere)
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetNsPid(there, far.Process.Pid); err != nil {
		t.Fatal(err)
	}
	command(t, "ip link set lo up")
	command(t, "ip link set "+vethHere+" up")
	command(t, "ip addr add "+netHere+"/24 dev "+vethHere)
	if _, err := io.WriteString(in, "go\n"); err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if addr, ok := strings.CutPrefix(lines.Text(), "answering "); ok {
			go func() { _, _ = io.Copy(io.Discard, out) }()
			return netip.MustParseAddrPort(addr)
		}
	}
	t.Fatal("the far host does not answer")
	return netip.AddrPort{}
}

func betweenHosts(t *testing.T) {
	c := quick()
	c.Each *= 6
	c.To = farHost(t)
	c.Interface = vethHere
	// Fragments leave by here one by one, and three in a hundred are dropped; so are answers that come in.
	if out, err := exec.Command("nft",
		"add table netdev lossy; add chain netdev lossy out { type filter hook egress device "+
			vethHere+" priority 0; }; add rule netdev lossy out ip protocol udp numgen random mod 100 < 3 drop").
		CombinedOutput(); err != nil {
		t.Fatalf("nft: %v: %s", err, out)
	}
	r, err := Run(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	command(t, "ip route replace "+netThere+"/32 dev "+vethHere+" mtu 1300")
	narrow, err := Run(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if narrow.Unbroken != 1300-headers || narrow.Best.Packet > 1300-headers {
		t.Errorf("on a path of 1300: longest %d, chosen %d", narrow.Unbroken, narrow.Best.Packet)
	}
	loss := map[int]float64{}
	for _, p := range r.Series[0].Points {
		loss[p.Packet] = p.Loss()
	}
	t.Logf("loss by packet: %v", loss)
	if r.Unbroken != 1472 || r.Best.Packet > 1472 || r.Best.Packet < packetMin {
		t.Errorf("longest without fragments %d, chosen %d", r.Unbroken, r.Best.Packet)
	}
	if loss[32768] < 0.2 || loss[32768] < 2*loss[1472] {
		t.Errorf("%.3f of long packets are lost, %.3f of short ones", loss[32768], loss[1472])
	}
}
