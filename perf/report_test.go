package perf

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"
)

func fakeResult(rate float64, change func(r *Result)) *Result {
	r := &Result{
		Options: Options{
			Primitive: "ordered", Members: 3, Size: 64, Senders: SendersAll, Transport: "udp", Waiting: "block",
			Netns: true,
		},
		Began: time.Unix(1e9, 0), DeliveredMin: rate, MegabytesMin: rate * 64 / 1e6,
		Latency: Latency{P50: 50, P99: 900, Max: 4000},
	}
	if change != nil {
		change(r)
	}
	return r
}

// A report is one page that fetches nothing, shows each case once with the spread of its runs, and compares.
func TestReport(t *testing.T) {
	var page bytes.Buffer
	now := []*Result{
		fakeResult(1.0e6, nil), fakeResult(1.2e6, nil), fakeResult(1.1e6, nil),
		fakeResult(5e3, func(r *Result) { r.Size, r.Lost, r.Transport = 65536, 7, "<script>" }),
		fakeResult(9e4, func(r *Result) { r.Primitive, r.Floor = "safe", &Floor{Memcpy: 12.5} }),
	}
	base := []*Result{
		fakeResult(4e5, nil), fakeResult(5e5, nil), fakeResult(8.9e4, func(r *Result) { r.Primitive = "safe" }),
	}
	if err := WriteReport(&page, now, base); err != nil {
		t.Fatal(err)
	}
	text := page.String()
	for _, want := range []string{
		"<svg", "1.1M [1M..1.2M]", "ordered 64 B, 3 members, all sending, udp, block", "×2.44", "64 KB", "12.5 GB/s",
		`class="bad">7<`, "450k [400k..500k]",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the page does not hold %q", want)
		}
	}
	for _, bad := range []string{"<script", "http://", "https://", "NaN", "Inf", "ZgotmplZ"} {
		if strings.Contains(text, bad) {
			t.Errorf("the page holds %q", bad)
		}
	}
	if n := strings.Count(text, "<td>ordered 64 B, 3 members, all sending, udp, block</td>"); n != 1 {
		t.Errorf("%d rows for three runs of one case", n)
	}
}

// Spreads that overlap are not told apart.
func TestChange(t *testing.T) {
	for _, c := range []struct {
		before, now spread
		want        string
	}{
		{spread{90, 100, 110}, spread{105, 120, 130}, "×1.20, within the spread"},
		{spread{90, 100, 110}, spread{190, 200, 210}, "×2.00"},
		{spread{}, spread{190, 200, 210}, ""},
	} {
		if got := change(c.before, c.now); got != c.want {
			t.Errorf("%v to %v: %q, want %q", c.before, c.now, got, c.want)
		}
	}
}

// What is no result is refused, and no page is made of nothing.
func TestBadReports(t *testing.T) {
	for _, text := range []string{"", "{", "[]", "{}", `{"primitive":"x"}`} {
		if _, err := ParseResult([]byte(text)); err == nil {
			t.Errorf("%q is accepted", text)
		}
	}
	if err := WriteReport(new(bytes.Buffer), nil, nil); err == nil {
		t.Error("a page of nothing")
	}
	text, err := json.Marshal(fakeResult(7, nil))
	if err != nil {
		t.Fatal(err)
	}
	if r, err := ParseResult(text); err != nil || r.DeliveredMin != 7 || r.Primitive != "ordered" {
		t.Errorf("%+v, %v", r, err)
	}
}

// Extremes draw as something.
func TestPlotsOfNothing(t *testing.T) {
	var page bytes.Buffer
	if err := WriteReport(&page, []*Result{fakeResult(0, func(r *Result) { r.Latency = Latency{} })}, nil); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(page.String(), "NaN") {
		t.Error("NaN in a plot of nothing")
	}
}
