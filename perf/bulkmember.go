package perf

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"github.com/khamsin-io/khamsin/oob"
	"github.com/khamsin-io/khamsin/vsync"
)

// bulkMember is a member's side.
type bulkMember struct {
	member
	o     BulkOptions
	store *oob.Store
	names []string   // of the objects of this run
	old   []string   // of those of the runs before, which are not deleted yet
	heard chan int64 // own ordered messages: when they were delivered
}

func (m *bulkMember) close() {
	if m.sys != nil {
		_ = m.sys.Close()
	}
	if m.store != nil {
		_ = m.store.Close()
	}
}

const bulkWithin = 10 * time.Minute

func (m *bulkMember) do(ctx context.Context, o *bulkOrder) (*bulkReport, error) {
	ctx, cancel := context.WithTimeout(ctx, bulkWithin)
	defer cancel()
	switch {
	case o.Bulk != nil:
		return &bulkReport{}, m.attach(ctx, o)
	case o.Prepare > 0:
		return &bulkReport{}, m.prepare(ctx, o.Prepare)
	case o.Begin:
		wire, st := wireBytes(m.Interface), m.store.Stats()
		if wire == 0 {
			wire = st.SentBytes + st.LinkSent + st.WrittenBytes
		}
		return &bulkReport{Processor: processorTime(), Wire: wire, Resident: residentBytes(), Stats: st}, nil
	case o.Go:
		return m.replicate(ctx)
	case o.Digest:
		return m.digest(ctx)
	case o.Take:
		for _, r := range m.store.ReplicateAll(m.names, []vsync.Address{m.sys.Address()}) {
			if err := r.Wait(ctx); err != nil {
				return nil, err
			}
		}
		return &bulkReport{}, nil
	case o.Clear:
		for _, r := range m.store.ReplicateAll(m.old, nil) {
			if err := r.Wait(ctx); err != nil {
				return nil, err
			}
		}
		m.old = nil
		return &bulkReport{}, nil
	case o.Floor:
		return m.floor()
	case o.Traffic > 0:
		return m.traffic(ctx, o.Traffic)
	}
	return nil, errors.New("an order that says nothing")
}

func (m *bulkMember) attach(ctx context.Context, o *bulkOrder) (err error) {
	oob.MoreProcs()
	m.part, m.clock, m.o = *o.Part, newHostClock(), *o.Bulk
	m.heard = make(chan int64, 1)
	if m.o.Megabits > 0 {
		if err := limitLine(m.Interface, m.o.Megabits); err != nil {
			return err
		}
	}
	m.DropShare = 0 // only of transfers
	config := m.config()
	if m.o.XDPBulk != "" {
		config.Transport = vsync.XDP(vsync.XDPOptions{Bulk: xdpBulks()[m.o.XDPBulk]})
	}
	if m.sys, err = vsync.Start(context.WithoutCancel(ctx), vsync.WithConfig(config)); err != nil {
		return err
	}
	m.group = m.sys.NewGroup(groupName)
	err = m.group.Handle(codeData, func(msg *vsync.Message) {
		if msg.From == m.sys.Address() {
			m.heard <- m.clock.now()
		}
	})
	if err != nil {
		return err
	}
	var options []oob.Option
	if m.o.Loss > 0 && m.Index > 0 {
		options = append(options, oob.WithReceiveLoss(m.o.Loss))
	}
	if m.o.Transfers > 0 {
		options = append(options, oob.WithMaxTransfers(m.o.Transfers))
	}
	if m.o.Spare > 0 {
		options = append(options, oob.WithSpareMemory(m.o.Spare))
	}
	if m.o.Dir != "" {
		options = append(options, oob.WithDirectory(m.o.Dir))
	}
	if m.store, err = oob.Attach(m.group, options...); err != nil {
		return err
	}
	if err := m.group.Join(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, gatherWithin)
	defer cancel()
	return m.store.AwaitMembers(ctx, m.o.Receivers+1)
}

// prepare makes objects of random bytes.
func (m *bulkMember) prepare(ctx context.Context, run int) error {
	m.old, m.names = append(m.old, m.names...), nil
	rng := rand.NewChaCha8([32]byte{byte(run), byte(run >> 8)})
	var objects []*oob.Object
	for i := range m.o.Objects {
		size := m.o.Size*int64(i+1)/int64(m.o.Objects) - m.o.Size*int64(i)/int64(m.o.Objects)
		o, err := m.store.Create(fmt.Sprintf("object-%d-%d", run, i), size)
		if err != nil {
			return err
		}
		_, _ = rng.Read(o.Bytes()) // never fails
		objects = append(objects, o)
		m.names = append(m.names, o.Name())
	}
	if err := m.store.Register(ctx, objects...); err != nil {
		return err
	}
	for _, o := range objects {
		if err := o.Close(); err != nil {
			return err
		}
	}
	return nil
}

func (m *bulkMember) replicate(ctx context.Context) (*bulkReport, error) {
	began := time.Now()
	for _, r := range m.store.ReplicateAll(m.names, m.store.Everybody()) {
		if err := r.Wait(ctx); err != nil {
			return nil, err
		}
	}
	return &bulkReport{Seconds: time.Since(began).Seconds()}, nil
}

// digest returns what the bytes that this member holds have as digests: it reads them.
func (m *bulkMember) digest(ctx context.Context) (*bulkReport, error) {
	r := &bulkReport{}
	for _, i := range m.store.List() {
		o, err := m.store.Fetch(ctx, i.Name)
		if err != nil {
			return nil, err
		}
		r.Digests = append(r.Digests, i.Name+" "+oob.Digest(o.Bytes()))
		if err := o.Close(); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// floor copies a file in the page cache, to as many others at once as there are receivers.
func (m *bulkMember) floor() (*bulkReport, error) {
	from, err := floorFile()
	if err != nil {
		return nil, err
	}
	defer func() { _ = from.Close() }()
	if _, err := io.CopyN(from, rand.NewChaCha8([32]byte{}), m.o.Size); err != nil {
		return nil, fmt.Errorf("floor: %w", err)
	}
	var all sync.WaitGroup
	faults := make([]error, m.o.Receivers)
	began := time.Now()
	for i := range m.o.Receivers {
		all.Go(func() { faults[i] = copyFile(from, m.o.Size) })
	}
	all.Wait()
	return &bulkReport{Seconds: time.Since(began).Seconds()}, errors.Join(faults...)
}

// copyFile copies a file as dd does, by reading and writing a mebibyte after the other.
func copyFile(from *os.File, size int64) error {
	to, err := floorFile()
	if err != nil {
		return err
	}
	defer func() { _ = to.Close() }()
	b := make([]byte, 1<<20)
	for at := int64(0); at < size; {
		n, err := from.ReadAt(b[:min(int64(len(b)), size-at)], at)
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("floor: %w", err)
		}
		if _, err := to.WriteAt(b[:n], at); err != nil {
			return fmt.Errorf("floor: %w", err)
		}
		at += int64(n)
	}
	return nil
}

// floorFile returns a file without a name, in memory where the system has a directory for that.
func floorFile() (*os.File, error) {
	dir := "/dev/shm"
	if _, err := os.Stat(dir); err != nil {
		dir = os.TempDir()
	}
	f, err := os.CreateTemp(dir, "khamsin-floor-*")
	if err != nil {
		return nil, fmt.Errorf("floor: %w", err)
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(fmt.Errorf("floor: %w", err), f.Close())
	}
	return f, nil
}

// trafficRate is how many ordered messages a second are sent.
const trafficRate = 500

// traffic measures how long ordered messages take to their own delivery.
func (m *bulkMember) traffic(ctx context.Context, long time.Duration) (*bulkReport, error) {
	h := newHistogram()
	payload := make([]byte, 64)
	began := m.clock.now()
	p := &pacer{clock: m.clock, sleeper: newSleeper(), first: began, interval: 1e9 / trafficRate}
	defer p.close()
	p.end = began + int64(long)
	for {
		_, stamp, ok := p.next()
		if !ok {
			break
		}
		if err := m.group.SendBytes(ctx, vsync.Ordered, codeData, payload); err != nil {
			return nil, err
		}
		select {
		case at := <-m.heard:
			if err := h.RecordValue(max(1, at-stamp)); err != nil {
				return nil, err
			}
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	return &bulkReport{Latency: latencyOf(h)}, nil
}
