package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// TestMain makes the test binary the program of member processes too.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "member":
			os.Exit(exitCode(Member(context.Background(), os.Stdin, os.Stdout, rows(2000))))
		case "demo": // see TestChildrenDieWithTheirParent
			o := small("udp")
			o.KeepGoing, o.Stdout, o.Stderr = time.Minute, os.Stdout, os.Stderr
			os.Exit(exitCode(Run(context.Background(), o)))
		}
	}
	goleak.VerifyTestMain(m)
}

func exitCode(err error) int {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// rows returns an input.
func rows(n int) []byte {
	var b bytes.Buffer
	for i := range n {
		fmt.Fprintf(&b, "item-%d,%d\n", i%17, i%101-50)
	}
	return b.Bytes()
}

func small(transport string) Options {
	return Options{
		Members: 4, Transport: transport, BuiltIn: rows(2000), Seed: 3, Traffic: 1500 * time.Millisecond, JSON: true,
		Program: os.Args[0],
	}
}

// play runs a demo and returns its result and what it told.
func play(t *testing.T, o Options) (result, string) {
	t.Helper()
	var out, story bytes.Buffer
	o.Stdout, o.Stderr = &out, &story
	if err := Run(t.Context(), o); err != nil {
		t.Fatalf("%v\n%s", err, story.String())
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	var res result
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &res); err != nil {
		t.Fatalf("last line %q: %v", lines[len(lines)-1], err)
	}
	return res, story.String()
}

// rows: VIEW-12, VIEW-13, VIEW-14, VIEW-15, MC-08, MC-11, XFR-05, CAP-05, CAP-10, CAP-11
func TestDemoInOneProcess(t *testing.T) {
	res, story := play(t, small("mem"))
	if !res.Agree || res.Members != 4 || res.Killed != 1 || res.Joined != 1 || res.Delivered == 0 || res.Views < 3 {
		t.Errorf("%+v", res)
	}
	for _, want := range []string{"is killed by Kill", "left M", "joined M4", "with the state of", "AGREE: "} {
		if !strings.Contains(story, want) {
			t.Errorf("the story does not tell %q:\n%s", want, story)
		}
	}
}

// rows: LIF-02, LIF-21, FD-02, ORC-06, VIEW-13, MC-08, XFR-05
func TestDemoOfProcesses(t *testing.T) {
	if testing.Short() {
		t.Skip("short: starts processes for some seconds")
	}
	res, story := play(t, small("udp"))
	if !res.Agree || res.Killed != 1 || res.Joined != 1 || !strings.Contains(story, "SIGKILL") {
		t.Errorf("%+v\n%s", res, story)
	}
}

// rows: FD-15, ORC-04, ORC-05, XFR-12
func TestKeepGoing(t *testing.T) {
	if testing.Short() {
		t.Skip("short: kills and joins for some seconds")
	}
	o := small("mem")
	o.KeepGoing = 4 * time.Second
	if res, story := play(t, o); !res.Agree || res.Killed+res.Joined < 3 {
		t.Errorf("%+v\n%s", res, story)
	}
}

func TestInterrupt(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var story bytes.Buffer
	o := small("mem")
	o.JSON, o.Stdout, o.Stderr = false, &story, &story
	timer := time.AfterFunc(400*time.Millisecond, cancel)
	defer timer.Stop()
	if err := Run(ctx, o); err == nil || !strings.Contains(err.Error(), "interrupted") {
		t.Errorf("interrupted demo: %v", err)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	for _, edit := range []func(o *Options){
		func(o *Options) { o.Members = 2 },
		func(o *Options) { o.Members = 33 },
		func(o *Options) { o.Transport = "pigeon" },
		func(o *Options) { o.KeepGoing = -time.Second },
		func(o *Options) { o.Suspect = -1 },
		func(o *Options) { o.Suspect = time.Hour },
		func(o *Options) { o.Input = "/nonexistent.csv" },
	} {
		o := small("mem")
		edit(&o)
		if err := Run(t.Context(), o); err == nil {
			t.Errorf("%+v: accepted", o)
		}
	}
}

// fixture returns a parent that has heard two members sum up alike.
func fixture() (*parent, *bytes.Buffer) {
	var out bytes.Buffer
	o := Options{Members: 2, Stdout: &out, Stderr: &out}
	p := &parent{
		o: o, input: []Movement{{"a", 1}, {"b", 2}, {"c", 4}, {"d", 8}}, screen: newScreen(&o, time.Now()),
		byAddr: map[string]*kid{}, views: map[uint64]*viewRecord{}, shares: map[int]share{},
	}
	totals := map[string]int64{"a": 1, "b": 2, "c": 4, "d": 8}
	for i := range 2 {
		s := share{Number: i, First: i, Step: 2, Rows: 2}
		p.shares[i] = s
		p.kids = append(p.kids, &kid{
			index: i, share: s, joined: true, sending: true, done: true, rows: 2,
			final: &final{View: 7, Count: 4, Stock: stockOf(totals), Applied: map[int]uint64{0: 2, 1: 2}},
		})
	}
	return p, &out
}

func TestVerdict(t *testing.T) {
	p, _ := fixture()
	must(t, p.judge())
	for name, spoil := range map[string]func(p *parent){
		"other order":    func(p *parent) { p.kids[1].final.Order[0]++ },
		"other stock":    func(p *parent) { p.kids[1].final.Stock[0]++ },
		"other count":    func(p *parent) { p.kids[1].final.Count++ },
		"other view":     func(p *parent) { p.kids[1].final.View++ },
		"a lost row":     func(p *parent) { p.kids[0].final.Applied[1] = 1; p.kids[1].final.Applied[1] = 1 },
		"all wrong":      func(p *parent) { p.kids[0].final.Stock[0]++; p.kids[1].final.Stock[0]++ },
		"rows of nobody": func(p *parent) { p.kids[0].final.Applied[9] = 1 },
		"too many rows":  func(p *parent) { p.kids[0].final.Applied[0] = 3 },
		"fewer than multicast": func(p *parent) {
			p.kids[1].rows = 3
		},
		"another history in front of a view": func(p *parent) {
			p.hear(report{Kind: kindView, Index: 0, View: &viewSeen{ID: 7, Count: 4}})
			p.hear(report{Kind: kindView, Index: 1, View: &viewSeen{ID: 7, Count: 3}})
		},
		"an end of its own": func(p *parent) { p.hear(report{Kind: kindEnded, Index: 1, Text: "exit status 2"}) },
	} {
		p, out := fixture()
		spoil(p)
		if err := p.judge(); err == nil || !strings.Contains(out.String(), "DISAGREE") {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}
