package tune

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// Columns of the table.
const (
	settingWidth = 30
	foundWidth   = 32
	wantedWidth  = 32
)

// WriteTable writes the report for a person: what is wrong first, by cause, then what is unknown, then the rest.
func (r Report) WriteTable(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "khamsin tune: profile %s, transport %s, interface %s\n", r.Profile, r.Transport, r.Interface)
	heading := ""
	wrong := 0
	for _, f := range r.Findings {
		group := r.heading(f)
		if group != heading {
			fmt.Fprintf(&b, "\n%s\n", group)
			writeRow(&b, "", "SETTING", "FOUND", "WANTED")
			heading = group
		}
		writeRow(&b, string(f.Severity), f.Setting, f.Found, f.Wanted)
		if f.Severity.Wrong() {
			wrong++
		}
		if f.Severity != OK {
			fmt.Fprintf(&b, "          why: %s\n", f.Why)
		}
		if f.Fix != "" {
			fmt.Fprintf(&b, "          fix: %s\n", f.Fix)
		}
	}
	switch wrong {
	case 0:
		b.WriteString("\nnothing is wrong\n")
	default:
		fmt.Fprintf(&b, "\n%d to mend; khamsin tune apply --dry-run shows what it would change\n", wrong)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (Report) heading(f Finding) string {
	switch {
	case f.Severity.Wrong():
		return "WRONG: " + strings.ToUpper(f.Cause.String())
	case f.Severity == Unknown:
		return "UNKNOWN"
	}
	return "RIGHT, OR WORTH KNOWING"
}

func writeRow(b *strings.Builder, severity, setting, found, wanted string) {
	fmt.Fprintf(b, "%-8s  %s  %s  %s\n", severity, pad(setting, settingWidth), pad(found, foundWidth),
		strings.TrimRight(pad(wanted, wantedWidth), " "))
}

// pad fills a cell up to its width in characters. What is longer stays whole.
func pad(s string, width int) string {
	s = cmp.Or(s, "-")
	return s + strings.Repeat(" ", max(0, width-utf8.RuneCountInString(s)))
}
