//go:build cgo && rdma

package rdma

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/khamsin-io/khamsin/dataplane"
)

const testLarge = 32 << 10

// withLarge makes room for large frames.
func withLarge(c *Config) {
	c.Large, c.LargeDepth = testLarge, 16
	c.Arena.LargeTx, c.Arena.LargeRx = 48, 32
}

// largeFilled returns a large frame that holds a number and a pattern; false when there is none.
func largeFilled(tr *Transport, to dataplane.Endpoint, n, size int) (dataplane.Packet, bool) {
	f, ok := tr.Arena().LargeTx().Get()
	if !ok {
		return dataplane.Packet{}, false
	}
	f.Len = uint32(size)
	copy(tr.Arena().Bytes(f), pattern(n, size))
	return dataplane.Packet{Frame: f, To: to}, true
}

// settle waits until a condition holds. Meanwhile each transport takes completions, and what comes.
func settle(t *testing.T, what string, ok func() bool, trs ...*Transport) (came map[*Transport]int) {
	t.Helper()
	came = map[*Transport]int{}
	batch := make([]dataplane.Packet, 64)
	for deadline := time.Now().Add(peersPatience); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not so; %+v, %+v", what, trs[0].Stats(), trs[0].Verbs())
		}
		for _, tr := range trs {
			if _, err := tr.Send(nil); err != nil {
				t.Fatal(err)
			}
			n, err := tr.Receive(batch, dataplane.Wait{Timeout: 5 * time.Millisecond})
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range batch[:n] {
				tr.Arena().Rx().Release(p.Frame)
			}
			came[tr] += n
		}
	}
	return came
}

// sendLarge sends n large frames to a process as fast as they are taken, and receives at others meanwhile.
func sendLarge(t *testing.T, from *Transport, to dataplane.Endpoint, n int, others ...*Transport) (came int) {
	t.Helper()
	trs := append([]*Transport{from}, others...)
	for i := range n {
		var p dataplane.Packet
		settled := settle(t, "a large frame to send with", func() (ok bool) {
			p, ok = largeFilled(from, to, i, testLarge-i)
			return ok
		}, trs...)
		taken := 0
		more := settle(t, "a large frame is taken", func() bool {
			k, err := from.Send([]dataplane.Packet{p})
			if err != nil {
				t.Fatal(err)
			}
			taken += k
			return taken == 1
		}, trs...)
		for _, tr := range others {
			came += settled[tr] + more[tr]
		}
	}
	return came
}

// home tells whether all large frames that a transport sent are back.
func home(tr *Transport) bool {
	return tr.Arena().LargeTx().Free() == tr.Arena().LargeTx().Cap()
}

// A rail whose queue pair fails, on either side, is made anew by the next frame, and every frame has either come or is
// counted as lost.
func TestRailIsRebuilt(t *testing.T) {
	a, b := openUntilEnd(t, withLarge), openUntilEnd(t, withLarge)
	sent, came := 0, 0
	send := func(n int) {
		t.Helper()
		came += sendLarge(t, a, b.Local(), n, b)
		sent += n
	}
	ready := func() { came += settle(t, "frames are home", func() bool { return home(a) }, a, b)[b] }
	send(5)
	ready()
	fail := []func() error{
		func() error {
			a.sender.mu.Lock()
			defer a.sender.mu.Unlock()
			return failPair(a.sender.rails.table[b.Local()].pair)
		},
		func() error {
			g := &b.keeper.guests
			g.mu.Lock()
			defer g.mu.Unlock()
			return failPair(g.byPeer[a.Local()].pair)
		},
	}
	for round := range fail {
		if err := fail[round](); err != nil {
			t.Fatal(err)
		}
		send(5)
		want := uint64(round + 1)
		more := settle(t, "the rail has failed", func() bool {
			return a.Verbs().RailFailures >= want && home(a) && int(b.Verbs().LargeCame+a.Stats().SendDropped) >= sent
		}, a, b)
		came += more[b]
		before := came
		send(5)
		ready()
		more = settle(t, "what is home has come", func() bool { return b.Verbs().LargeCame >= uint64(before+5) }, a, b)
		if came += more[b]; came != before+5 {
			t.Errorf("round %d: %d of 5 frames came by the new rail", round, came-before)
		}
	}
	if st, v := a.Stats(), a.Verbs(); came+int(st.SendDropped) < sent || v.Rails != 3 || v.RailFailures != 2 {
		t.Errorf("%d sent, %d came; %+v, %+v", sent, came, st, v)
	}
}

// A process has no more rails, in either direction, than it is told; the ones used last stay.
func TestRailsAreBounded(t *testing.T) {
	few := func(c *Config) { withLarge(c); c.Rails = 2 }
	a := openUntilEnd(t, few)
	var others []*Transport
	for range 4 {
		others = append(others, openUntilEnd(t, withLarge))
	}
	came := 0
	for round := range 3 {
		for _, to := range others {
			came += sendLarge(t, a, to.Local(), 2, others...)
			if n := len(a.sender.rails.table); n > 2 {
				t.Fatalf("round %d: %d rails", round, n)
			}
		}
	}
	more := settle(t, "all have come, or are lost", func() bool {
		sum := a.Stats().SendDropped
		for _, tr := range others {
			sum += tr.Verbs().LargeCame
		}
		return home(a) && sum >= 24
	}, append(others, a)...)
	for _, tr := range others {
		came += more[tr]
	}
	if st := a.Stats(); came+int(st.SendDropped) != 24 || came < 20 {
		t.Errorf("%d of 24 came; %+v %+v", came, st, a.Verbs())
	}
	came = 0
	for range 3 { // and now to the process that has room for two guests
		for _, from := range others {
			before, lost := a.Verbs().LargeCame, from.Stats().SendDropped
			came += sendLarge(t, from, a.Local(), 1, a)
			more := settle(t, "it has come, or is lost", func() bool {
				return home(from) && (a.Verbs().LargeCame > before || from.Stats().SendDropped > lost)
			}, from, a)
			came += more[a]
			a.keeper.guests.mu.Lock()
			n := len(a.keeper.guests.byPeer)
			a.keeper.guests.mu.Unlock()
			if n > 2 {
				t.Fatalf("%d guests", n)
			}
		}
	}
	if came < 10 {
		t.Errorf("%d of 12 came", came)
	}
}

// A receiver that lives and takes nothing keeps its sender's memory for a while, and then no more. What was not lost
// comes when it looks, and so does what is sent then.
func TestRailStandsStill(t *testing.T) {
	a, b := openUntilEnd(t, withLarge), openUntilEnd(t, withLarge)
	sendLarge(t, a, b.Local(), 1, b)
	settle(t, "the rail stands", func() bool { return b.Verbs().LargeCame == 1 && home(a) }, a, b)
	a.sender.mu.Lock()
	a.sender.rails.stall = time.Second
	a.sender.mu.Unlock()
	for range 40 { // more than b has buffers for
		p, ok := largeFilled(a, b.Local(), 1, testLarge)
		if !ok {
			break
		}
		if n, err := a.Send([]dataplane.Packet{p}); err != nil {
			t.Fatal(err)
		} else if n == 0 {
			a.Arena().LargeTx().Release(p.Frame)
		}
	}
	settle(t, "the rail is given up", func() bool { return a.Verbs().RailFailures == 1 && home(a) }, a)
	lost := a.Stats().SendDropped
	if lost == 0 {
		t.Error("nothing is counted as lost")
	}
	sent := a.Stats().SentPackets
	settle(t, "all others come", func() bool { return b.Verbs().LargeCame+lost >= sent }, b)
	sendLarge(t, a, b.Local(), 3, b)
	settle(t, "and so do later ones", func() bool { return b.Verbs().LargeCame+lost >= sent+3 && home(a) }, a, b)
}

// What the other side does not take is dropped and counted, and what it takes goes through: frames above its longest,
// and all large ones where it has none.
func TestRailToLessAbleProcess(t *testing.T) {
	const less = 8 << 10
	a := openUntilEnd(t, withLarge)
	b := openUntilEnd(t, func(c *Config) { withLarge(c); c.Large = less })
	none := openUntilEnd(t, nil)
	for round := range 2 { // before and after it is known
		var batch []dataplane.Packet
		for i, size := range []int{less, less + 1, testLarge, less - 1} {
			p, ok := largeFilled(a, b.Local(), i, size)
			if !ok {
				t.Fatal("no frame")
			}
			batch = append(batch, p)
		}
		sendAll(t, a, batch)
		came, dropped := uint64(2*round+2), uint64(2*round+2)
		settle(t, "two come and two do not", func() bool {
			return home(a) && b.Verbs().LargeCame == came && a.Stats().SendDropped == dropped
		}, a, b)
	}
	p, _ := largeFilled(a, none.Local(), 1, less)
	sendAll(t, a, []dataplane.Packet{p})
	settle(t, "there is no answer", func() bool { return home(a) && a.Stats().SendDropped == 5 }, a, none)
	if v, st := a.Verbs(), none.Stats(); v.RailFailures != 1 || v.Rails != 1 || st.ReceiveForeign == 0 {
		t.Errorf("%+v; the other side %+v", v, st)
	}
}

// Words that belong to no rail change nothing, and strangers' are counted.
func TestRailStrangers(t *testing.T) {
	a, b := openUntilEnd(t, withLarge), openUntilEnd(t, withLarge)
	if came := sendLarge(t, a, b.Local(), 3, b); came < 3 {
		settle(t, "all have come", func() bool { return b.Verbs().LargeCame == 3 }, b)
	}
	host := dataplane.Endpoint{IP: a.Local().IP}
	for _, w := range []railWord{
		{kind: railEnd, attempt: 1}, {kind: railAnswer, attempt: 1, number: 5, psn: 6, large: 7},
	} {
		a.keeper.receive(letter{from: host, word: w})
		b.keeper.receive(letter{from: a.Local(), word: w})
		a.sender.mu.Lock()
		ok := a.sender.tell(b.Local(), railWord{kind: 77, attempt: 1})
		a.sender.mu.Unlock()
		if !ok {
			t.Error("the word is not sent")
		}
	}
	settle(t, "two words are no words", func() bool { return b.Stats().ReceiveForeign == 2 }, a, b)
	sendLarge(t, a, b.Local(), 3, b)
	settle(t, "the rail is as it was", func() bool { return b.Verbs().LargeCame == 6 }, a, b)
	if v := a.Verbs(); v.Rails != 1 || v.RailFailures != 0 || v.LargeSent != 6 {
		t.Errorf("%+v", v)
	}
}

// Large frames cost no allocation, and at most one call into C each to send.
func TestLargeWork(t *testing.T) {
	a, b := openUntilEnd(t, withLarge), openUntilEnd(t, withLarge)
	batch, got := make([]dataplane.Packet, 8), make([]dataplane.Packet, 64)
	lost := false
	round := func() {
		for i := range batch {
			f, ok := a.Arena().LargeTx().Get()
			if !ok {
				lost = true
				return
			}
			f.Len = testLarge
			batch[i] = dataplane.Packet{Frame: f, To: b.Local()}
		}
		for sent := 0; sent < len(batch); {
			n, err := a.Send(batch[sent:])
			lost = lost || err != nil
			sent += n
		}
		for came := 0; came < len(batch) && !lost; {
			n, err := b.Receive(got, dataplane.Wait{Timeout: burstPatience})
			lost = n == 0 || err != nil
			for _, p := range got[:n] {
				b.Arena().LargeRx().Release(p.Frame)
			}
			came += n
		}
		for !lost && !home(a) {
			_, err := a.Send(nil)
			lost = err != nil
		}
	}
	round()
	before := a.Verbs()
	allocs := testing.AllocsPerRun(20, round)
	after := a.Verbs()
	if lost {
		t.Fatalf("a frame is lost: %+v %+v", a.Stats(), b.Stats())
	}
	t.Logf("MEASURED: large frames of %d KiB: %.2f work requests each, %.3f signalled, %v allocations in a round of %d",
		testLarge>>10, float64(after.WorkRequests-before.WorkRequests)/(21*8),
		float64(after.Signalled-before.Signalled)/(21*8), allocs, len(batch))
	sent, signals := after.LargeSent-before.LargeSent, after.Signalled-before.Signalled
	if allocs != 0 || sent != 21*8 || signals > sent/4 {
		t.Errorf("%d sent, %v allocations, %+v", sent, allocs, after)
	}
}

// child is another process, which receives large frames until it is killed.
type child struct {
	cmd   *exec.Cmd
	local dataplane.Endpoint
	lines *bufio.Scanner
}

// startChild starts this test binary as a child.
func startChild(t *testing.T) *child {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestChildReceives$", "-test.timeout=120s")
	cmd.Env = append(os.Environ(), "KHAMSIN_RDMA_CHILD=1")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe() // it ends with us
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c := &child{cmd: cmd, lines: bufio.NewScanner(out)}
	var once sync.Once
	t.Cleanup(func() { once.Do(func() { in.Close(); c.kill() }) })
	if !c.lines.Scan() || json.Unmarshal(c.lines.Bytes(), &c.local) != nil {
		t.Fatalf("the child says %q", c.lines.Text())
	}
	return c
}

// kill ends the child at once.
func (c *child) kill() {
	_ = c.cmd.Process.Kill()
	_ = c.cmd.Wait()
}

// received waits until the child has received so many large frames.
func (c *child) received(t *testing.T, n int) {
	t.Helper()
	for c.lines.Scan() {
		var got int
		if _, err := fmt.Sscan(c.lines.Text(), &got); err == nil && got >= n {
			return
		}
	}
	t.Fatalf("the child ended before it had %d frames", n)
}

// TestChildReceives is what a child does.
func TestChildReceives(t *testing.T) {
	if os.Getenv("KHAMSIN_RDMA_CHILD") == "" {
		return // it is no test
	}
	tr := openUntilEnd(t, withLarge)
	text, err := json.Marshal(tr.Local())
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println(string(text))
	go func() {
		_, _ = os.Stdin.Read(make([]byte, 1))
		os.Exit(0) // the parent is gone
	}()
	batch := make([]dataplane.Packet, 64)
	for total := 0; ; {
		n, err := tr.Receive(batch, dataplane.Wait{Timeout: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range batch[:n] {
			b := tr.Arena().Bytes(p.Frame)
			number := int(b[0])<<24 | int(b[1])<<16 | int(b[2])<<8 | int(b[3])
			if string(b) != string(pattern(number, len(b))) {
				t.Errorf("frame %d is not what was sent", number)
				os.Exit(1)
			}
			tr.Arena().Rx().Release(p.Frame)
		}
		if total += n; n > 0 {
			fmt.Println(total)
		}
	}
}

// victim is a process that kill ends by SIGKILL; next starts another.
type victim struct {
	local dataplane.Endpoint
	kill  func()
	next  func() dataplane.Endpoint
}

// killInFlight sends large frames to a process that is killed while they are on their way. They come home, and what was
// lost is counted; meanwhile the sender reaches others, and afterwards the process in the other's place.
func killInFlight(t *testing.T, a, b *Transport, v victim) {
	t.Helper()
	stop := 0
	small := 0
	for sent := 0; stop < 40; sent++ {
		p, ok := largeFilled(a, v.local, sent, testLarge)
		if ok {
			n, err := a.Send([]dataplane.Packet{p})
			if err != nil {
				t.Fatal(err)
			}
			if n == 0 {
				a.Arena().LargeTx().Release(p.Frame)
			}
		} else if _, err := a.Send(nil); err != nil {
			t.Fatal(err)
		}
		if sent == 20 {
			v.kill() // with frames on the rail
		}
		if sent > 20 {
			exchangeOne(t, a, b, 0)
			small++
			if a.Verbs().RailFailures > 0 {
				stop++
			}
		}
	}
	settle(t, "the rail to the dead has failed and its frames are home", func() bool {
		return a.Verbs().RailFailures > 0 && a.Stats().SendDropped > 0 && home(a)
	}, a)
	t.Logf("MEASURED: a process was killed with large frames on their way to it: %d were counted as lost, and %d "+
		"datagrams went to another process meanwhile", a.Stats().SendDropped, small)
	to := v.next()
	before := a.Verbs()
	sendLarge(t, a, to, 10)
	settle(t, "all is sent to the next one", func() bool { return home(a) }, a)
	if after := a.Verbs(); after.RailFailures > before.RailFailures+1 || after.Rails != before.Rails+1 {
		t.Errorf("%+v, before %+v", after, before)
	}
}

// A process that is killed with large frames on their way to it.
func TestRailToKilledProcess(t *testing.T) {
	a, b := openUntilEnd(t, withLarge), openUntilEnd(t, nil)
	first := startChild(t)
	var second *child
	killInFlight(t, a, b, victim{first.local, func() {
		first.received(t, 1)
		first.kill()
	}, func() dataplane.Endpoint {
		second = startChild(t)
		return second.local
	}})
	second.received(t, 10)
}
