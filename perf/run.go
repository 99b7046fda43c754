package perf

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/khamsin-io/khamsin/vsync"
)

// Place is a member's place in a run of several hosts.
type Place struct {
	Rank, Size int    // of the member among those that were started; rank 0 founds the system and makes the result
	System     string // name of the run: equal at all members, different from other runs on the same network
	Interface  string
	GroupPort  uint16
	PeerPort   uint16
	Hosts      []string // where rank 0 is, for transports without multicast
}

// PlaceFromEnv returns the rank and the size that mpirun or srun gave to this process; false when neither did.
func PlaceFromEnv() (rank, size int, ok bool) {
	for _, names := range [][2]string{
		{"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"}, {"PMI_RANK", "PMI_SIZE"}, {"SLURM_PROCID", "SLURM_NTASKS"},
	} {
		rank, err1 := strconv.Atoi(os.Getenv(names[0]))
		size, err2 := strconv.Atoi(os.Getenv(names[1]))
		if err1 == nil && err2 == nil {
			return rank, size, true
		}
	}
	return 0, 0, false
}

func (p *Place) validate() error {
	var faults []error
	if p.Size < 1 || p.Size > MembersMax || p.Rank < 0 || p.Rank >= p.Size {
		faults = append(faults, fmt.Errorf("rank %d of %d: want a size of 1 to %d and a rank below it", p.Rank, p.Size,
			MembersMax))
	}
	if p.System == "" || p.Interface == "" || p.GroupPort == 0 || p.PeerPort == 0 {
		faults = append(faults, errors.New("system, interface and ports must be given"))
	}
	return errors.Join(faults...)
}

// Limits of the end of a run.
const (
	reportWithin = 60 * time.Second
	byeWithin    = 2 * time.Second
)

// Run takes part in a run that something else started, once for each rank. It returns the result at rank 0, and nil at
// the others.
func Run(ctx context.Context, o Options, at Place) (*Result, error) {
	o.Members = at.Size
	if err := errors.Join(o.Validate(), at.validate()); err != nil {
		return nil, err
	}
	began := time.Now()
	m, err := newMember(part{
		Options: o, Index: at.Rank, System: at.System, Interface: at.Interface, GroupPort: at.GroupPort,
		PeerPort: at.PeerPort, DropShare: o.Loss, Hosts: at.Hosts,
	})
	if err != nil {
		return nil, err
	}
	defer m.close()
	own, err := m.run(ctx)
	if err != nil {
		return nil, fmt.Errorf("rank %d: %w", at.Rank, err)
	}
	if at.Rank > 0 {
		return nil, m.file(ctx, own)
	}
	reports, err := m.collect(ctx, own)
	if err != nil {
		return nil, err
	}
	if err := m.group.SendBytes(ctx, vsync.FIFO, codeBye, nil); err != nil {
		return nil, err
	}
	limited, cancel := context.WithTimeout(ctx, byeWithin)
	defer cancel()
	_ = m.group.Flush(limited) // so that the others hear it; who does not ends by itself
	return merge(o, began, reports)
}

// file sends this member's report to rank 0, and waits until the run is over.
func (m *member) file(ctx context.Context, r *report) error {
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if err := m.group.SendBytes(ctx, vsync.FIFO, codeFile, text); err != nil {
		return err
	}
	return wait(ctx, m.bye, reportWithin, "for the end of the run")
}

// collect waits for the reports of all members that are to live.
func (m *member) collect(ctx context.Context, own *report) ([]*report, error) {
	reports := []*report{own}
	want := m.Members
	if m.Primitive == "kill" {
		want--
	}
	limit := time.NewTimer(reportWithin)
	defer limit.Stop()
	for len(reports) < want {
		select {
		case text := <-m.files:
			r := new(report)
			if err := json.Unmarshal(text, r); err != nil {
				return nil, fmt.Errorf("report of another member: %w", err)
			}
			if r.Index != m.Index {
				reports = append(reports, r)
			}
		case <-limit.C:
			return nil, fmt.Errorf("%d of %d members have reported within %v", len(reports), want, reportWithin)
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	return reports, nil
}

// bootID returns a number that all processes of a host share, and no two hosts; empty where there is none.
func bootID() string {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}
