package main

import (
	"bytes"
	"fmt"
	"os"
	"regexp"
	"strings"
)

// outcome is what the log says of one step.
type outcome struct {
	name    string
	text    string
	ended   bool
	ok      bool
	seconds float64
}

// report prints the machine's steps. A step that the plan has and the log has not is an error.
func (m *machine) report(p *plan, verbose bool) error {
	text, err := os.ReadFile(m.path("out.log"))
	if err != nil {
		console, _ := os.ReadFile(m.path("console.log"))
		fmt.Printf("machine %d: no log; the end of its console:\n%s\n", m.number, tail(console, 2000))
		return nil // the machine's own error says it
	}
	found := map[string]outcome{}
	for _, o := range readLog(string(text)) {
		found[o.name] = o
	}
	if len(found) == 0 && strings.TrimSpace(string(text)) != "" {
		fmt.Printf("machine %d: nothing was run:\n%s\n", m.number, tail(text, 2000))
	}
	missing := 0
	for _, s := range p.steps {
		if s.machine != 0 && s.machine != m.number {
			continue
		}
		o, ok := found[s.name]
		if !ok {
			missing++
			o.name = s.name
		}
		o.print(m.number, verbose)
	}
	if missing > 0 {
		return fmt.Errorf("machine %d: %d steps were not run", m.number, missing)
	}
	return nil
}

// readLog cuts a log into its steps.
func readLog(text string) []outcome {
	var list []outcome
	for line := range strings.Lines(text) {
		var name string
		var rc int
		var from, to float64
		switch {
		case strings.HasPrefix(line, "STEP "):
			list = append(list, outcome{name: strings.TrimSpace(strings.TrimPrefix(line, "STEP "))})
			continue
		case len(list) == 0:
			continue
		}
		last := &list[len(list)-1]
		if n, _ := fmt.Sscanf(line, "STEP-END %s %d %f %f", &name, &rc, &from, &to); n == 4 && name == last.name {
			last.ended, last.ok, last.seconds = true, rc == 0, to-from
			continue
		}
		last.text += line
	}
	return list
}

// print shows a step: its result and what was measured, skipped and said of missing devices in it, and all of it when
// it failed.
func (o outcome) print(machine int, verbose bool) {
	word := "FAILED"
	switch {
	case o.ok:
		word = "ok"
	case !o.ended:
		word = "DID NOT END"
	}
	passed := len(regexp.MustCompile(`(?m)^\s*--- PASS: `).FindAllString(o.text, -1))
	fmt.Printf("machine %d: %-28s %-11s %6.1fs %4d tests passed\n", machine, o.name, word, o.seconds, passed)
	if verbose || !o.ok {
		fmt.Print(o.text)
		return
	}
	for line := range strings.Lines(o.text) {
		switch {
		case strings.Contains(line, "--- SKIP: "), strings.Contains(line, "MEASURED"),
			strings.Contains(line, "AGREE: "), strings.Contains(line, "no RDMA device: "):
			fmt.Print("    " + strings.TrimSpace(line) + "\n")
		}
	}
}

// tail returns the last bytes of b.
func tail(b []byte, n int) []byte {
	return bytes.ToValidUTF8(b[max(0, len(b)-n):], nil)
}
