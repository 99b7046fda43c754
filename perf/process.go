package perf

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"
)

// order is what the parent tells a member process, one JSON value each. Each gets one answer.
type order struct {
	Net    *netOrder   `json:",omitempty"` // set up this network namespace
	Run    *part       `json:",omitempty"` // take part in a run
	Attend *part       `json:",omitempty"` // join for rounds
	Await  *awaitOrder `json:",omitempty"` // wait for a view
	Join   int64       `json:",omitempty"` // join, at this time
	End    bool        `json:",omitempty"` // wait for the end of the system
	Leave  bool        `json:",omitempty"` // leave the system
	Floor  *floorOrder `json:",omitempty"` // measure the machine
	Bulk   *bulkOrder  `json:",omitempty"` // replicate objects
}

// answer is a member process's.
type answer struct {
	Error    string       `json:",omitempty"`
	Report   *report      `json:",omitempty"`
	Fate     *fate        `json:",omitempty"`
	Attended *attended    `json:",omitempty"`
	Views    int          `json:",omitempty"` // number of the newest view
	At       int64        `json:",omitempty"` // when the process that was to be gone was left out
	Floor    *floorReport `json:",omitempty"`
	Bulk     *bulkReport  `json:",omitempty"`
}

// kid is a member process as its parent holds it.
type kid struct {
	index int
	cmd   *exec.Cmd
	in    io.WriteCloser
	out   *json.Decoder
}

// do gives an order and waits for the answer.
func (k *kid) do(o order) (answer, error) {
	var a answer
	if err := json.NewEncoder(k.in).Encode(o); err != nil {
		return a, fmt.Errorf("member %d: %w", k.index, err)
	}
	if err := k.out.Decode(&a); err != nil {
		return a, fmt.Errorf("member %d has ended: %w", k.index, err)
	}
	if a.Error != "" {
		return a, fmt.Errorf("member %d: %s", k.index, a.Error)
	}
	return a, nil
}

// endWithin is how long a member process may take to end by itself.
const endWithin = 15 * time.Second

// end ends the process, which ends by itself with its input.
func (k *kid) end() {
	_ = k.in.Close()
	timer := time.AfterFunc(endWithin, func() { _ = k.cmd.Process.Kill() })
	defer timer.Stop()
	_ = k.cmd.Wait() // a member that failed has said so in an answer; a victim has no more to say
}

// startKid starts a member process: this program with the given arguments, which must end in Member. The calling
// thread must live as long as the process.
func startKid(command []string, index int, private bool) (*kid, error) {
	k := &kid{index: index, cmd: exec.Command(command[0], command[1:]...)}
	k.cmd.SysProcAttr = kidAttributes(private)
	k.cmd.Stderr = os.Stderr
	var err error
	if k.in, err = k.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := k.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	k.out = json.NewDecoder(bufio.NewReader(out))
	if err := k.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start member %d: %w", index, err)
	}
	return k, nil
}

// Member is the main function of a member process that Local started: orders come by in, answers go out by out.
func Member(ctx context.Context, in io.Reader, out io.Writer) error {
	w := json.NewEncoder(out)
	var m *member
	var f floorServer
	var b bulkMember
	defer func() {
		b.close()
		if m != nil {
			m.close()
		}
		_ = f.stop()
	}()
	for d := json.NewDecoder(in); ; {
		var o order
		if err := d.Decode(&o); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return fmt.Errorf("orders: %w", err)
		}
		var a answer
		var err error
		switch {
		case o.Net != nil:
			err = o.Net.setUp()
		case o.Run != nil:
			if m, err = newMember(*o.Run); err == nil {
				a.Report, err = m.run(ctx)
			}
		case o.Attend != nil:
			if m, err = newMember(*o.Attend); err == nil {
				a.Attended, err = m.attend(ctx)
			}
		case o.Await != nil && m != nil:
			if a.At, err = m.seen.await(ctx, o.Await); err == nil {
				a.Views = m.seen.views
				err = m.awaitOracle(ctx, o.Await.Oracle)
			}
		case o.Join != 0 && m != nil:
			err = m.joinAt(ctx, o.Join)
		case o.End && m != nil:
			a.Fate, err = m.end(ctx)
		case o.Leave && m != nil && m.seen.gone != nil:
			err = m.sys.Close() // the others go on
			m = nil
		case o.Leave && m != nil:
			m.close()
			m = nil
		case o.Bulk != nil:
			a.Bulk, err = b.do(ctx, o.Bulk)
		case o.Floor != nil:
			a.Floor, err = f.do(ctx, o.Floor)
		}
		if err != nil {
			a.Error = err.Error()
		}
		if err := w.Encode(a); err != nil {
			return err
		}
	}
}
