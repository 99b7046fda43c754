package objects

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"
)

// Client is a connection to a daemon, for one request.
type Client struct {
	conn net.Conn
	in   *bufio.Reader
}

// Dial connects to the daemon at a socket.
func Dial(path string) (*Client, error) {
	c, err := net.Dial("unix", path)
	if err != nil {
		return nil, fmt.Errorf("no daemon serves %s: start one with khamsin oob serve (%w)", path, err)
	}
	return &Client{conn: c, in: bufio.NewReaderSize(c, lineMax)}, nil
}

// Close ends the connection, and what was asked for and is not done.
func (c *Client) Close() error { return c.conn.Close() }

// Call makes a request and stores its result. Notifications are passed to hear, which may be nil.
func (c *Client) Call(ctx context.Context, method string, params, result any,
	hear func(method string, params json.RawMessage)) error {
	defer context.AfterFunc(ctx, func() { _ = c.conn.Close() })()
	r := request{Version: version, ID: json.RawMessage("1"), Method: method}
	var err error
	if params != nil {
		if r.Params, err = json.Marshal(params); err != nil {
			return err
		}
	}
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if _, err := c.conn.Write(append(b, '\n')); err != nil {
		return err
	}
	for {
		line, err := c.in.ReadBytes('\n')
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = errors.New("the daemon has ended the connection")
			}
			return err
		}
		var a struct {
			Result json.RawMessage `json:"result"`
			Error  *Error          `json:"error"`
			Method string          `json:"method"`
			Params json.RawMessage `json:"params"`
		}
		if err := json.Unmarshal(line, &a); err != nil {
			return fmt.Errorf("the daemon says what is no JSON: %w", err)
		}
		switch {
		case a.Method != "":
			if hear != nil {
				hear(a.Method, a.Params)
			}
		case a.Error != nil:
			return a.Error
		default:
			return json.Unmarshal(a.Result, result)
		}
	}
}

// Bar shows how far a request is, on a terminal: the share, the rate, and how long it will take.
type Bar struct {
	all *mpb.Progress
	bar *mpb.Bar
}

// NewBar returns a bar. It shows nothing when out is no terminal.
func NewBar(out *os.File, what string) *Bar {
	if !term.IsTerminal(int(out.Fd())) {
		return &Bar{}
	}
	b := &Bar{all: mpb.New(mpb.WithOutput(out), mpb.WithWidth(40))}
	b.bar = b.all.AddBar(0, mpb.BarRemoveOnComplete(), mpb.PrependDecorators(decor.Name(what+" ")),
		mpb.AppendDecorators(decor.CountersKibiByte("% .1f / % .1f"), decor.Name("  "),
			decor.AverageSpeed(decor.SizeB1024(0), "% .1f"), decor.Name("  ETA "), decor.AverageETA(decor.ET_STYLE_GO)))
	return b
}

// Hear takes a notification.
func (b *Bar) Hear(method string, params json.RawMessage) {
	var p progress
	if b.bar == nil || method != "progress" || json.Unmarshal(params, &p) != nil {
		return
	}
	b.bar.SetTotal(p.Total, false)
	b.bar.SetCurrent(p.Done)
}

// End takes the bar away.
func (b *Bar) End() {
	if b.bar != nil {
		b.bar.Abort(true)
		b.all.Wait()
	}
}

// Bytes returns a number of bytes for people.
func Bytes(n int64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return strconv.FormatInt(n, 10) + " B"
	}
	v, i := float64(n)/1024, 0
	for v >= 1024 && i < len(units)-1 {
		v /= 1024
		i++
	}
	return fmt.Sprintf("%.1f %ciB", v, units[i])
}
