package oob

import (
	"bytes"
	"fmt"
	"net"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/khamsin-io/khamsin/internal/netns"
	"github.com/khamsin-io/khamsin/vsync"
)

// listener reads all packets on the loopback and looks for words.
type listener struct {
	fd    int
	words []byte
	bytes atomic.Int64 // that were heard
	heard atomic.Bool  // the words
	stop  atomic.Bool
	done  chan struct{}
}

// listen starts a listener, which ends with the test.
func listen(t *testing.T, words string) *listener {
	t.Helper()
	everything := int(uint16(unix.ETH_P_ALL)<<8 | uint16(unix.ETH_P_ALL)>>8)
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, everything)
	netns.Require(t, "netns", err) // the same privilege
	l := &listener{fd: fd, words: []byte(words), done: make(chan struct{})}
	t.Cleanup(func() { _ = unix.Close(fd) })
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: uint16(everything), Ifindex: lo.Index}),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 50_000}),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	go l.read()
	return l
}

func (l *listener) read() {
	defer close(l.done)
	packet := make([]byte, 1<<17)
	for {
		n, _, err := unix.Recvfrom(l.fd, packet, 0)
		if err != nil {
			if l.stop.Load() {
				return // all that had come was read
			}
			continue
		}
		l.bytes.Add(int64(n))
		if bytes.Contains(packet[:n], l.words) {
			l.heard.Store(true)
		}
	}
}

// end ends listening when everything was read.
func (l *listener) end() {
	l.stop.Store(true)
	<-l.done
}

// Who listens on the wire reads nothing of the objects of a group or system with a key, by multicast, by unicast and
// along a chain. Without a key he reads all.
func TestObjectsAreSealed(t *testing.T) {
	const size = 1 << 20
	key := vsync.StaticKey(bytes.Repeat([]byte{3}, vsync.KeyLen))
	networks := map[string]vsync.Network{"multicast": {}, "unicast": {UnicastOnly: true}, "tcp": {TCPOnly: true}}
	for name, network := range networks {
		for whose, keyed := range map[string]func(c *cluster){
			"nobody": func(*cluster) {},
			"group":  func(c *cluster) { c.group = append(c.group, vsync.WithGroupKey(key)) },
			"system": func(c *cluster) { c.system = append(c.system, vsync.WithSystemKey(key)) },
		} {
			t.Run(name+", key of "+whose, func(t *testing.T) {
				words := fmt.Sprintf("attack at dawn, by %s of %s. ", name, whose)
				c := newCluster(t, 3, func(c *cluster) { c.system = append(c.system, withNetwork(network)) }, keyed)
				l := listen(t, words)
				o, err := c.members[0].store.Create("plan", size)
				if err != nil {
					t.Fatal(err)
				}
				text := bytes.Repeat([]byte(words), size/len(words)+1)[:size]
				copy(o.Bytes(), text)
				if err := c.members[0].store.Register(within(t), o); err != nil {
					t.Fatal(err)
				}
				if err := o.Close(); err != nil {
					t.Fatal(err)
				}
				if err := c.members[0].store.Replicate("plan", c.addresses(0, 1, 2)).Wait(within(t)); err != nil {
					t.Fatal(err)
				}
				c.members[2].want(t, "plan", text)
				l.end()
				if l.heard.Load() != (whose == "nobody") || l.bytes.Load() < size {
					t.Errorf("%d bytes, the words among them: %v", l.bytes.Load(), l.heard.Load())
				}
			})
		}
	}
}
