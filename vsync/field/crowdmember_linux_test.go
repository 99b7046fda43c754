package field

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"github.com/khamsin-io/khamsin/internal/netns"
	"github.com/khamsin-io/khamsin/vsync"
)

// crowdMark tells a process of this program that it is a member of a crowd, and carries its crowdOrders.
const crowdMark = "KHAMSIN_FIELD_CROWD"

// crowdOrders says who a member of a crowd is.
type crowdOrders struct {
	Index, Members int
	Network        vsync.Network
	Pause          time.Duration // of a sender, between its messages
}

// crowdAnswer is what a member says, one JSON value for each line that it reads.
type crowdAnswer struct {
	Relayed uint64
	Most    uint64   // TCP connections at a time
	Open    uint64   // now
	Retired uint64   // closed for others
	Sent    uint64   // messages that this member sent
	From    []uint64 // messages that it delivered, by the index of their sender
	Digest  uint64   // of what it delivered, and in which order
	Members int      // of the present view
	Fault   string
}

// crowdMember is one process of a crowd: it sends numbered messages in one order that all agree on, and notes what is
// delivered.
type crowdMember struct {
	crowdOrders
	sys   *vsync.System
	group *vsync.Group
	stop  chan struct{}
	over  sync.WaitGroup

	mu     sync.Mutex
	state  crowdAnswer
	digest interface {
		Write(p []byte) (int, error)
		Sum64() uint64
	}
}

// crowdMain is the main function of a member. It reads words: "go", "stop" and "tell"; with the end of its input it
// ends.
func crowdMain(text string) {
	m := &crowdMember{stop: make(chan struct{}), digest: fnv.New64a()}
	err := json.Unmarshal([]byte(text), &m.crowdOrders)
	if err == nil {
		m.state.From = make([]uint64, m.Members)
		err = m.enter()
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println(netns.Ready)
	out := json.NewEncoder(os.Stdout)
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		switch in.Text() {
		case "go":
			m.over.Go(m.send)
		case "stop":
			close(m.stop)
			m.over.Wait()
		}
		if out.Encode(m.tell()) != nil {
			break
		}
	}
	m.sys.Kill()
	os.Exit(0)
}

// enter starts the system and joins the group.
func (m *crowdMember) enter() error {
	c := vsync.DefaultConfig()
	c.Interfaces, c.Mute, c.Network, c.Discovery = []string{netns.Interface}, true, m.Network, patience
	c.SuspectAfter = 10 * time.Second // a machine with few processors; who is killed is noticed by its lifelines
	c.FastStart = m.Index == 0
	var err error
	if m.sys, err = vsync.Start(context.Background(), vsync.WithConfig(c)); err != nil {
		return err
	}
	m.group = m.sys.NewGroup("crowd")
	ctx, cancel := within()
	defer cancel()
	return errors.Join(m.group.Handle(codeCast, m.deliver), m.group.OnView(func(v *vsync.View) {
		m.mu.Lock()
		m.state.Members = v.Size()
		m.mu.Unlock()
	}), m.group.Join(ctx))
}

// send sends until it is told to stop.
func (m *crowdMember) send() {
	r := rand.New(rand.NewPCG(1, uint64(m.Index)))
	for n := uint64(0); ; n++ {
		select {
		case <-m.stop:
			return
		case <-time.After(m.Pause/2 + rand.N(m.Pause)):
		}
		size := 16 + r.IntN(1000)
		if r.IntN(50) == 0 {
			size += r.IntN(40_000)
		}
		b := make([]byte, size)
		binary.LittleEndian.PutUint64(b, uint64(m.Index))
		binary.LittleEndian.PutUint64(b[8:], n)
		ctx, cancel := within()
		err := m.group.SendBytes(ctx, vsync.Ordered, codeCast, b)
		cancel()
		m.mu.Lock()
		if err != nil {
			m.state.Fault = err.Error()
			m.mu.Unlock()
			return
		}
		m.state.Sent++
		m.mu.Unlock()
	}
}

// deliver notes a message. Those of one sender come in the order in which it sent them, without a gap.
func (m *crowdMember) deliver(msg *vsync.Message) {
	m.mu.Lock()
	defer m.mu.Unlock()
	from, n := binary.LittleEndian.Uint64(msg.Payload), binary.LittleEndian.Uint64(msg.Payload[8:])
	if want := m.state.From[from]; n != want && m.state.Fault == "" {
		m.state.Fault = fmt.Sprintf("message %d of member %d came where %d was due", n, from, want)
	}
	m.state.From[from]++
	_, _ = m.digest.Write(msg.Payload[:16])
}

func (m *crowdMember) tell() crowdAnswer {
	t := m.sys.Stats().Transport
	m.mu.Lock()
	defer m.mu.Unlock()
	a := m.state
	a.From = append([]uint64(nil), a.From...)
	a.Digest, a.Relayed = m.digest.Sum64(), t.Relayed
	a.Most, a.Open, a.Retired = t.ConnectionsMost, t.Connections, t.Retired
	return a
}
