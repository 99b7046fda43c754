package sim

import (
	"slices"
	"strings"
	"testing"

	"github.com/khamsin-io/khamsin/dataplane/clock"
	"github.com/khamsin-io/khamsin/vsync/core"
)

// book writes a history by hand: one group, members by number. Time is the number of entries written so far.
type book struct {
	h    *history
	now  clock.Time
	last map[int]*core.View
}

func newBook(members int) *book {
	b := &book{h: &history{groups: []string{"g"}, safeOf: []int{0}, clean: true, anonymous: map[place]*message{}}}
	b.last = map[int]*core.View{}
	for i := 1; i <= members; i++ {
		p := &processRecord{id: i - 1, node: i, run: 1, addr: address(i)}
		b.h.processes = append(b.h.processes, p)
		b.h.lives = append(b.h.lives, &life{id: i - 1, process: p})
	}
	return b
}

func address(i int) core.Address {
	return core.Address{PID: uint32(firstPID + i), Incarnation: uint64(i)}
}

func addresses(list ...int) []core.Address {
	var out []core.Address
	for _, i := range list {
		out = append(out, address(i))
	}
	return out
}

func (b *book) life(i int) *life { return b.h.lives[i-1] }

func (b *book) write(i int, e entry) {
	b.now++
	e.at = b.now
	l := b.life(i)
	l.log = append(l.log, e)
}

// view makes a view that follows another one, nil before the first.
func (b *book) view(id core.ViewID, before *core.View, members ...int) *core.View {
	v := &core.View{ID: id, Members: addresses(members...)}
	if before == nil {
		before = &core.View{}
	}
	for _, a := range v.Members {
		if !before.Contains(a) {
			v.Joined = append(v.Joined, a)
		}
	}
	for _, a := range before.Members {
		if !v.Contains(a) {
			v.Left = append(v.Left, a)
		}
	}
	return v
}

// install writes a view into the logs of members.
func (b *book) install(v *core.View, members ...int) {
	for _, i := range members {
		if b.last[i] == nil && len(b.life(i).log) == 0 {
			b.write(i, entry{kind: entryInit})
		}
		b.last[i] = v
		b.write(i, entry{kind: entryView, view: v, viewID: v.ID})
	}
}

// send makes a member send a message in its present view.
func (b *book) send(i int, f core.Flavour) *message {
	l := b.life(i)
	b.now++
	m := b.h.addMessage(&message{sender: l, flavour: f, size: 10, accepted: true, submitted: b.now,
		handled: len(l.log)})
	if b.last[i] != nil {
		m.view = b.last[i].ID
	}
	l.sent = append(l.sent, m)
	if f != core.Unordered && f != core.Raw {
		m.number = 1
		for _, s := range l.sent[:len(l.sent)-1] {
			m.number = max(m.number, s.number+1)
		}
	}
	return m
}

// deliver writes messages into a member's log, in its present view.
func (b *book) deliver(i int, list ...*message) {
	for _, m := range list {
		v := b.last[i]
		b.write(i, entry{kind: entryMessage, message: m, viewID: v.ID, sender: v.Rank(m.sender.process.addr)})
	}
}

// peer writes a point-to-point message into a member's log.
func (b *book) peer(i int, m *message) {
	b.now++
	b.life(i).peers = append(b.life(i).peers, entry{at: b.now, kind: entryPeer, message: m})
}

// rest says that the world came to rest with these members alive.
func (b *book) rest(members ...int) {
	for _, i := range members {
		b.life(i).rest = len(b.life(i).log)
	}
}

// die ends members.
func (b *book) die(how fate, members ...int) {
	for _, i := range members {
		b.life(i).fate, b.life(i).endedAt = how, b.now
		b.life(i).process.fate, b.life(i).process.endedAt = how, b.now
	}
}

// caught returns the names of the checkers that report, each once, sorted.
func (b *book) caught() string {
	var names []string
	for _, f := range judge(b.h) {
		names = append(names, f.Checker)
	}
	slices.Sort(names)
	return strings.Join(slices.Compact(names), " ")
}

// handmade is a history written by hand and the checkers that must report, in any order; the others must be silent.
type handmade struct {
	name  string
	want  string
	write func() *book
}

// expect judges hand-made histories.
func expect(t *testing.T, list []handmade) {
	t.Helper()
	for _, c := range list {
		t.Run(c.name, func(t *testing.T) {
			b := c.write()
			want := strings.Fields(c.want)
			slices.Sort(want)
			if got := b.caught(); got != strings.Join(want, " ") {
				t.Errorf("reported: %q, want %q", got, c.want)
				for _, f := range judge(b.h) {
					t.Logf("%s: %s\n%s", f.Checker, f.Text, strings.Join(f.Log, "\n"))
				}
			}
		})
	}
}

// pair returns a book with members 1 and 2 in view 1, and that view.
func pair() (*book, *core.View) {
	b := newBook(4)
	v := b.view(1, nil, 1, 2)
	b.install(v, 1, 2)
	return b, v
}

// trio returns a book with members 1, 2 and 3 in view 1, and that view.
func trio() (*book, *core.View) {
	b := newBook(4)
	v := b.view(1, nil, 1, 2, 3)
	b.install(v, 1, 2, 3)
	return b, v
}
