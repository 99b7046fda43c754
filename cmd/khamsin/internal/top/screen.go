package top

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	tea "charm.land/bubbletea/v2"
)

// Every is how often the screen is made anew.
const Every = time.Second

// Print writes a sample as a table of processes and, below, of their groups.
func Print(w io.Writer, dir string, s *Sample) error {
	var b bytes.Buffer
	if len(s.Processes) == 0 {
		fmt.Fprintf(&b, "no processes in %s: start them with KHAMSIN_STATUS=1, or see vsync.WithStatus\n",
			dir)
	}
	t := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	system := ""
	for i := range s.Processes {
		p := &s.Processes[i]
		if p.System != system || i == 0 {
			system = p.System
			if i > 0 {
				fmt.Fprintln(t)
			}
			fmt.Fprintf(t, "system %s\n", system)
			fmt.Fprintln(t, "  PROCESS\tORACLE\tVIA\tSENT/s\tMB/s\tRECEIVED/s\tMB/s\tAGAIN/s\tLOST/s\tREFUSED/s\t"+
				"FRAMES\tACCUSED")
		}
		r := &p.Rates
		fmt.Fprintf(t, "  %s\t%s\t%s\t%.0f\t%.1f\t%.0f\t%.1f\t%.0f\t%.0f\t%.0f\t%d\t%d\n", p.Address, p.role(),
			p.Transport, r.SentPackets, r.SentBytes/1e6, r.ReceivedPackets, r.ReceivedBytes/1e6, r.Resent, r.Dropped,
			r.Refused, p.Frames, p.Suspects)
		if p.Error != "" {
			fmt.Fprintf(t, "    over: %s\n", p.Error)
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if err := printGroups(&b, s); err != nil {
		return err
	}
	for _, path := range s.Silent {
		fmt.Fprintf(&b, "no answer: %s\n", path)
	}
	_, err := w.Write(b.Bytes())
	return err
}

// role says what a process is in the ORACLE.
func (p *Process) role() string {
	switch {
	case p.Leader:
		return "leads"
	case strings.Contains(strings.Join(p.Oracle, " "), p.Address):
		return "member"
	}
	return "-"
}

func printGroups(w io.Writer, s *Sample) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	head := false
	for i := range s.Processes {
		p := &s.Processes[i]
		for _, g := range p.Groups {
			if !head {
				head = true
				fmt.Fprintln(t, "\n  GROUP\tPROCESS\tVIEW\tRANK\tMEMBERS\tWAITING\tUNSTABLE\tQUEUED\tSLOW\tSTATE")
			}
			state := "steady"
			switch {
			case g.Loading:
				state = "loading"
			case g.Changing:
				state = "changing"
			}
			fmt.Fprintf(t, "  %s\t%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%s\n", g.Name, p.Address, g.View, g.Rank,
				len(g.Members), g.Waiting, g.Unstable, g.Queued, g.Slow, state)
		}
	}
	return t.Flush()
}

// screen is the live view.
type screen struct {
	dir    string
	sample *Sample
	err    error
	top    int // first line that is shown
	height int
}

// looked is a fresh sample.
type looked struct {
	sample *Sample
	err    error
}

func (m screen) look() tea.Cmd {
	before := m.sample
	return func() tea.Msg {
		s, err := Look(m.dir, before)
		return looked{s, err}
	}
}

// Init takes the first sample.
func (m screen) Init() tea.Cmd { return m.look() }

// Update takes samples and keys in.
func (m screen) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case looked:
		m.sample, m.err = msg.sample, msg.err
		return m, tea.Tick(Every, func(time.Time) tea.Msg { return next{} })
	case next:
		return m, m.look()
	case tea.WindowSizeMsg:
		m.height = msg.Height
	case tea.KeyPressMsg:
		switch msg.String() {
		case "q", "esc", "ctrl+c":
			return m, tea.Quit
		case "down", "j":
			m.top++
		case "up", "k":
			m.top = max(0, m.top-1)
		}
	}
	return m, nil
}

// next asks for the next sample.
type next struct{}

// View shows the sample.
func (m screen) View() tea.View {
	var b strings.Builder
	switch {
	case m.err != nil:
		fmt.Fprintln(&b, "error:", m.err)
	case m.sample != nil:
		fmt.Fprintf(&b, "khamsin top  %s  q: quit, arrows: scroll\n\n", m.sample.At.Format(time.TimeOnly))
		if err := Print(&b, m.dir, m.sample); err != nil {
			fmt.Fprintln(&b, "error:", err)
		}
	}
	lines := strings.Split(b.String(), "\n")
	top := min(m.top, max(0, len(lines)-1))
	end := len(lines)
	if m.height > 0 {
		end = min(end, top+m.height)
	}
	v := tea.NewView(strings.Join(lines[top:end], "\n"))
	v.AltScreen = true
	return v
}

// Live shows the processes until the user ends it, or ctx.
func Live(ctx context.Context, dir string) error {
	_, err := tea.NewProgram(screen{dir: dir}, tea.WithContext(ctx)).Run()
	if errors.Is(err, tea.ErrInterrupted) || ctx.Err() != nil {
		return nil
	}
	return err
}
