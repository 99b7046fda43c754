package demo

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"
)

// screen prints the timeline and, on a terminal, a progress bar below it.
type screen struct {
	out    io.Writer
	began  time.Time
	bars   *mpb.Progress // nil without a terminal
	bar    *mpb.Bar
	rows   uint64 // 0: not known
	tenths uint64 // told, without a terminal
}

func newScreen(o *Options, began time.Time) *screen {
	s := &screen{out: o.Stdout, began: began}
	if o.JSON {
		s.out = o.Stderr
	}
	if f, ok := s.out.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		s.bars = mpb.New(mpb.WithOutput(f), mpb.WithWidth(60))
	}
	return s
}

// line prints one line of the timeline.
func (s *screen) line(format string, args ...any) {
	s.text("%7.3f  %s", time.Since(s.began).Seconds(), fmt.Sprintf(format, args...))
}

// text prints one line as it is.
func (s *screen) text(format string, args ...any) {
	if s.bar != nil {
		fmt.Fprintf(s.bars, format+"\n", args...)
		return
	}
	fmt.Fprintf(s.out, format+"\n", args...)
}

// total says how many messages there will be at most.
func (s *screen) total(rows uint64) {
	s.rows = rows
	if s.bars != nil {
		s.bar = s.bars.AddBar(int64(rows), mpb.PrependDecorators(decor.CountersNoUnit("%d / %d messages")),
			mpb.AppendDecorators(decor.Percentage()))
	}
}

// progress says that somebody delivered n messages so far.
func (s *screen) progress(n uint64) {
	switch {
	case s.rows == 0:
		return
	case s.bar != nil:
		s.bar.SetCurrent(int64(min(n, s.rows)))
	case n*10/s.rows > s.tenths:
		s.tenths = n * 10 / s.rows
		s.line("%d of %d messages delivered", n, s.rows)
	}
}

// finish takes the bar away.
func (s *screen) finish() {
	if s.bar != nil {
		s.bar.Abort(false)
		s.bars.Wait()
		s.bar, s.bars = nil, nil
	}
}
