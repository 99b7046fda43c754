package demo

import (
	"context"
	"log/slog"
	"strings"
)

// reporter is a log handler that turns the library's lines into reports.
type reporter struct{ tell func(report) }

// Enabled is slog.Handler's.
func (*reporter) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelInfo }

// Handle is slog.Handler's.
func (r *reporter) Handle(_ context.Context, record slog.Record) error {
	var b strings.Builder
	b.WriteString(record.Message)
	text := ""
	record.Attrs(func(a slog.Attr) bool {
		b.WriteString(" " + a.String())
		if a.Key == "text" {
			text = a.Value.String()
		}
		return true
	})
	switch {
	case record.Message == "oracle":
		r.tell(report{Kind: kindOracle, Text: text})
	case record.Level >= slog.LevelWarn:
		r.tell(report{Kind: kindWarning, Text: b.String()})
	}
	return nil
}

// WithAttrs is slog.Handler's.
func (r *reporter) WithAttrs([]slog.Attr) slog.Handler { return r }

// WithGroup is slog.Handler's.
func (r *reporter) WithGroup(string) slog.Handler { return r }
