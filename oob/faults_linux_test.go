package oob

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// rows: OOB-42, OOB-31
func TestHolderDies(t *testing.T) {
	c := newCluster(t, 4)
	b := c.members[0].put(t, "f", 64<<20)
	if err := c.members[0].store.Replicate("f", c.addresses(0, 1)).Wait(within(t)); err != nil {
		t.Fatal(err)
	}
	c.members[1].store.Replicate("f", c.addresses(0, 1, 2, 3))
	_, err := c.members[1].store.Await(within(t), func(l []Info) bool { return len(l) > 0 && l[0].State == Moving })
	if err != nil {
		t.Fatal(err)
	}
	c.members[0].sys.Kill()
	c.members[2].want(t, "f", b)
	c.members[3].want(t, "f", b)
	list, err := c.members[1].store.Await(within(t), func(l []Info) bool {
		return len(l) > 0 &&
			len(l[0].Holders) == 3
	})
	if err != nil {
		t.Fatalf("%v: %+v", err, list)
	}
}

// rows: OOB-31, OOB-40
func TestNobodyIsLeft(t *testing.T) {
	c := newCluster(t, 3, func(c *cluster) { c.store = append(c.store, WithReceiveLoss(0.98)) }) // it takes long
	c.members[0].put(t, "f", 64<<20)
	c.members[1].store.Replicate("f", c.addresses(0, 1, 2))
	_, err := c.members[1].store.Await(within(t), func(l []Info) bool { return len(l) > 0 && l[0].State == Moving })
	if err != nil {
		t.Fatal(err)
	}
	c.members[0].sys.Kill()
	if _, err := c.members[2].store.Fetch(within(t), "f"); !errors.Is(err, ErrLost) {
		t.Errorf("fetch: %v, want ErrLost, unless it was faster", err)
	}
	if err := c.members[2].store.uses(within(t), 0); err != nil {
		t.Error(err)
	}
}

// A request that was accepted is carried out even when its process dies at once; a joiner knows the catalogue.
//
// rows: OOB-40
func TestRequesterDies(t *testing.T) {
	c := newCluster(t, 4)
	b := c.members[0].put(t, "f", 8<<20)
	c.members[3].store.Replicate("f", c.addresses(0, 1, 2))
	_, err := c.members[3].store.Await(within(t), func(l []Info) bool {
		return len(l) > 0 &&
			len(l[0].Pending)+len(l[0].Holders) == 3
	})
	if err != nil {
		t.Fatal(err)
	}
	c.members[3].sys.Kill()
	c.members[1].want(t, "f", b)
	c.members[2].want(t, "f", b)
	j := c.join()
	if _, err := j.store.Lookup("f"); err != nil {
		t.Error(err)
	}
	if err := j.store.Replicate("f", append(c.addresses(0, 1, 2), j.sys.Address())).Wait(within(t)); err != nil {
		t.Fatal(err)
	}
	j.want(t, "f", b)
}

// rows: OOB-14, OOB-15, OOB-19, OOB-03, OOB-05
func TestManyObjects(t *testing.T) {
	n := 5000
	if testing.Short() {
		n = 500
	}
	c := newCluster(t, 3, func(c *cluster) { c.store = append(c.store, WithMaxTransfers(200)) })
	var objects []*Object
	var names []string
	for i := range n {
		o, err := c.members[0].store.Create(fmt.Sprint("small ", i), 2000)
		if err != nil {
			t.Fatal(err)
		}
		copy(o.Bytes(), fmt.Sprint("object ", i))
		objects, names = append(objects, o), append(names, o.Name())
	}
	if err := c.members[0].store.Register(within(t), objects...); err != nil {
		t.Fatal(err)
	}
	if got := c.members[0].store.casts.SentPackets.Load(); got != 0 {
		t.Errorf("registering sent %d packets", got)
	}
	for _, r := range c.members[0].store.ReplicateAll(names, c.addresses(0, 1, 2)) {
		if err := r.Wait(within(t)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range n {
		o, err := c.members[2].store.Fetch(within(t), names[i])
		if err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprint("object ", i, "\x00"); string(o.Bytes()[:len(want)]) != want {
			t.Fatalf("object %d is %q", i, o.Bytes()[:20])
		}
		if err := errors.Join(o.Close(), objects[i].Close()); err != nil {
			t.Fatal(err)
		}
	}
	for _, m := range c.members[1:] {
		if got, want := m.store.casts.ReceivedBytes.Load(), uint64(n*2000*13/10); got > want {
			t.Errorf("%d bytes were received for %d objects of 2,000", got, n)
		}
	}
	// and many transfers at once, of objects too big to share one
	for i := range 30 {
		c.members[i%3].put(t, fmt.Sprint("big ", i), 2<<20)
	}
	var requests []*Request
	for i := range 30 {
		requests = append(requests, c.members[1].store.Replicate(fmt.Sprint("big ", i), c.addresses(0, 1, 2)))
	}
	for _, r := range requests {
		if err := r.Wait(within(t)); err != nil {
			t.Error(err)
		}
	}
}

// rows: OOB-39
func TestRandomRequests(t *testing.T) {
	n := 1000
	if testing.Short() {
		n = 200
	}
	c := newCluster(t, 4)
	contents := map[string][]byte{}
	for i := range 8 {
		name := fmt.Sprint("o", i)
		contents[name] = c.members[i%4].put(t, name, 1+i*37_000)
	}
	rng := rand.New(rand.NewPCG(1, 1))
	for range n {
		name := fmt.Sprint("o", rng.IntN(8))
		var to []int
		for i := range 4 {
			if rng.IntN(2) == 0 {
				to = append(to, i)
			}
		}
		if len(to) > 0 {
			c.members[rng.IntN(4)].store.Replicate(name, c.addresses(to...))
		}
	}
	settled := func(l []Info) bool {
		return len(l) == 8 && !slices.ContainsFunc(l, func(i Info) bool { return i.State != Settled })
	}
	for _, m := range c.members {
		if err := m.store.idle(within(t)); err != nil {
			t.Fatal(err)
		}
	}
	for i, m := range c.members {
		// What was ordered before this is known here when it ends.
		if err := m.store.Delete("none").Wait(within(t)); !errors.Is(err, ErrNotFound) {
			t.Fatal(err)
		}
		list, err := m.store.Await(within(t), settled)
		if err != nil {
			t.Fatalf("%v: %+v", err, list)
		}
		used := int64(0)
		for _, o := range list {
			if o.Local {
				m.want(t, o.Name, contents[o.Name])
				used += o.Size
			}
		}
		if err := m.store.uses(within(t), used); err != nil {
			t.Errorf("member %d: %v", i, err)
		}
	}
}

// idle waits until nothing that this process asked for is under way.
func (s *Store) idle(ctx context.Context) error {
	for {
		s.mu.Lock()
		n, changed := len(s.requests), s.changed
		s.mu.Unlock()
		if n == 0 {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("%d requests are open: %w", n, ctx.Err())
		}
	}
}

// uses waits until the objects take so many bytes here.
func (s *Store) uses(ctx context.Context, bytes int64) error {
	for s.pool.Used() != bytes {
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("%d bytes are used, want %d", s.pool.Used(), bytes)
		}
	}
	return nil
}

// rows: OOB-34, OOB-36
func TestFromFileAndViews(t *testing.T) {
	path := filepath.Join(t.TempDir(), "numbers")
	want := randomBytes(1, 800_000)
	if err := os.WriteFile(path, want, 0o600); err != nil {
		t.Fatal(err)
	}
	c := newCluster(t, 2)
	o, err := c.members[0].store.FromFile("f", path)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.members[0].store.Register(within(t), o); err != nil {
		t.Fatal(err)
	}
	if err := c.members[0].store.Replicate("f", c.addresses(0, 1)).Wait(within(t)); err != nil {
		t.Fatal(err)
	}
	got, err := c.members[1].store.Fetch(within(t), "f")
	if err != nil {
		t.Fatal(err)
	}
	x, err := View[float64](o.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	y, err := View[float64](got.Bytes())
	if err != nil || len(x) != 100_000 || len(y) != len(x) || got.Digest() != o.Digest() {
		t.Errorf("%d and %d numbers, digests %s and %s, %v", len(x), len(y), o.Digest(), got.Digest(), err)
	}
	if _, err := View[uint64](want[1:]); err == nil {
		t.Error("numbers at an odd address")
	}
	if err := errors.Join(o.Close(), got.Close()); err != nil {
		t.Fatal(err)
	}
}
