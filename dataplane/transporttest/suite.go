// Package transporttest is the conformance suite of transports: what dataplane.Transport promises, as tests.
//
// A transport's test calls Run with a Factory. The suite reads the transport's Caps and demands what they claim:
// order and no loss only of a Reliable one, channels only with Multicast. Its bursts are small enough that no working
// transport on an idle path loses anything, so that elsewhere too every packet is waited for, and a lost one is a
// failure. After every test the arenas must be whole, and no goroutine and no file descriptor may be left.
package transporttest

import (
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/khamsin-io/khamsin/dataplane"
)

// patience is how long the suite waits for what must happen.
const patience = 10 * time.Second

// World is a place where transports reach each other and nobody else. Each test gets a new one.
type World struct {
	// Open opens a transport. The suite closes it. Frames must hold the transport's MTU.
	Open func(tb testing.TB, o Options) dataplane.Transport

	// Inject sends a datagram from outside to the subscribers of ch, or to the transport at to when ch is zero. It is
	// nil where strangers cannot reach a transport with a datagram of any size they like.
	Inject func(tb testing.TB, to dataplane.Endpoint, ch dataplane.Channel, payload []byte)

	// Unnamed says that packets do not tell by which channel they came, and are counted one for each receiver.
	Unnamed bool
}

// Options of a transport in a World.
type Options struct {
	Tx     int // frames to send with, at least
	Rx     int // times that Receive can hand out a frame before it needs one back, exactly; with GRO, super-packets
	Buffer int // bytes of packets that wait for Receive; zero means plenty
}

// Factory makes a World in which the transports do without one of their offloads; none is left out when without is
// empty.
type Factory func(tb testing.TB, without string) World

// Run runs the suite: once with all offloads, and once without each of those named.
func Run(t *testing.T, f Factory, offloads ...string) {
	warmUp(t)
	t.Run("all", func(t *testing.T) { runAll(t, f, "") })
	for _, name := range offloads {
		t.Run("without-"+name, func(t *testing.T) { runAll(t, f, name) })
	}
}

// scene is one test's surroundings.
type scene struct {
	*testing.T
	World
	found *dataplane.Caps // by the first test of a run
}

// check reports an error, if there is one. Any goroutine.
func (s *scene) check(err error) {
	s.Helper()
	if err != nil {
		s.Error(err)
	}
}

func runAll(t *testing.T, f Factory, without string) {
	var found dataplane.Caps
	for _, c := range []struct {
		name string
		run  func(*scene)
	}{
		{"Describes", testDescribes},
		{"Sizes", testSizes},
		{"TooLarge", testTooLarge},
		{"Batches", testBatches},
		{"MixedBatches", testMixedBatches},
		{"EmptyBatch", testEmptyBatch},
		{"ErrorStopsBatch", testErrorStopsBatch},
		{"NobodyThere", testNobodyThere},
		{"References", testReferences},
		{"SubFrames", testSubFrames},
		{"Forward", testForward},
		{"OwnPacket", testOwnPacket},
		{"Answer", testAnswer},
		{"Reliable", testReliable},
		{"Large", testLarge},
		{"LargeMixed", testLargeMixed},
		{"LargeRefused", testLargeRefused},
		{"LargeForward", testLargeForward},
		{"LargeSlowReceiver", testLargeSlowReceiver},
		{"LargeNobodyThere", testLargeNobodyThere},
		{"NoMulticast", testNoMulticast},
		{"Subscribe", testSubscribe},
		{"BadChannel", testBadChannel},
		{"MulticastToMany", testMulticastToMany},
		{"OnlySubscribed", testOnlySubscribed},
		{"ManyChannels", testManyChannels},
		{"EmptyArena", testEmptyArena},
		{"Overflow", testOverflow},
		{"Strangers", testStrangers},
		{"StrangersOnChannel", testStrangersOnChannel},
		{"Stats", testStats},
		{"Polling", testPolling},
		{"Timeout", testTimeout},
		{"WakeBefore", testWakeBefore},
		{"WakeDuring", testWakeDuring},
		{"WakeKeptForBlocking", testWakeKeptForBlocking},
		{"PacketWakes", testPacketWakes},
		{"CloseDuringReceive", testCloseDuringReceive},
		{"UseAfterClose", testUseAfterClose},
		{"CloseWithPacketsWaiting", testCloseWithPacketsWaiting},
		{"AllAtOnce", testAllAtOnce},
		{"NoAllocation", testNoAllocation},
	} {
		if strings.HasPrefix(c.name, "Large") && found.Name != "" && found.Large == 0 {
			continue // it claims no such frames
		}
		t.Run(c.name, func(t *testing.T) {
			checkLeaks(t)
			c.run(&scene{t, f(t, without), &found})
		})
	}
}

// warmUp makes the runtime open the descriptors of its poller, which stay, before any are counted.
func warmUp(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	w.Close()
}

// checkLeaks makes the test fail if it leaves goroutines or descriptors. It comes before whatever else is cleaned up.
func checkLeaks(t *testing.T) {
	before := goleak.IgnoreCurrent()
	files := openFiles()
	t.Cleanup(func() {
		goleak.VerifyNone(t, before)
		for fd, target := range openFiles() {
			if files[fd] != target {
				t.Errorf("descriptor %s is left: %s", fd, target)
			}
		}
	})
}

// openFiles returns the process's descriptors and what they are; none where the system does not tell.
func openFiles() map[string]string {
	const dir = "/proc/self/fd"
	files := map[string]string{}
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if target, err := os.Readlink(dir + "/" + e.Name()); err == nil { // not the one that read the directory
			files[e.Name()] = target
		}
	}
	return files
}
