package bpf

import (
	"errors"
	"fmt"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// attachment is the program on an interface, which this process helps to keep there.
type attachment struct {
	link link.Link
	mode Mode
	maps demuxMaps
}

// close lets go of the program. With the last process that does, the kernel takes it off the interface.
func (a *attachment) close() error { return errors.Join(a.link.Close(), a.maps.Close()) }

// How often, and after what pause, attaching is tried again when another process comes or goes at the same moment.
const (
	attachTries = 100
	attachPause = 5 * time.Millisecond
)

// errRace says that what was found on the interface is gone, or that what was missing is there now.
var errRace = errors.New("another process attaches or detaches at the same time") // immutable: an error

// attach finds our program on an interface, or attaches it.
func attach(ifIndex int, mode Mode) (*attachment, error) {
	var a *attachment
	var err error
	for range attachTries {
		if a, err = tryAttach(ifIndex, mode); !errors.Is(err, errRace) {
			return a, err
		}
		time.Sleep(attachPause)
	}
	return nil, err
}

func tryAttach(ifIndex int, mode Mode) (*attachment, error) {
	ifi, err := netlink.LinkByIndex(ifIndex)
	if err != nil {
		return nil, fmt.Errorf("bpf: interface %d: %w", ifIndex, err)
	}
	if xdp := ifi.Attrs().Xdp; xdp != nil && xdp.Attached {
		return adopt(ifi, ebpf.ProgramID(xdp.ProgId))
	}
	modes := []Mode{mode}
	if mode == ModeAuto {
		modes = []Mode{ModeNative, ModeGeneric}
	}
	for i, m := range modes {
		var a *attachment
		if a, err = attachNew(ifi, m); err == nil || i == len(modes)-1 {
			return a, err
		}
		if errors.Is(err, errRace) || errors.Is(err, &MissingError{Need: NeedCapability}) {
			return nil, err
		}
	}
	return nil, err
}

// attachNew loads the program and attaches it to an interface that has none.
func attachNew(ifi netlink.Link, mode Mode) (*attachment, error) {
	var objs demuxObjects
	if err := loadDemuxObjects(&objs, nil); err != nil {
		return nil, explain("load the demultiplexer", err)
	}
	defer objs.KhamsinDemux.Close() // the link keeps it
	a := &attachment{mode: mode, maps: objs.demuxMaps}
	flags := link.XDPGenericMode
	if mode == ModeNative {
		flags = link.XDPDriverMode
	}
	err := errors.Join(
		table{&a.maps}.setDirectory(demuxDirectory{Version: layoutVersion}),
		objs.KhamsinDemux.BindMap(a.maps.Directory), // others find the maps by the program, which does not use this one
	)
	if err == nil {
		a.link, err = link.AttachXDP(link.XDPOptions{
			Program: objs.KhamsinDemux, Interface: ifi.Attrs().Index, Flags: flags,
		})
	}
	if err == nil {
		return a, nil
	}
	return nil, errors.Join(attachError(ifi.Attrs(), mode, err), a.maps.Close())
}

// attachError says why a program could not be attached.
func attachError(ifi *netlink.LinkAttrs, mode Mode, err error) error {
	what := fmt.Sprintf("attach to %q in %s mode", ifi.Name, mode)
	switch {
	case errors.Is(err, unix.EBUSY), errors.Is(err, unix.EEXIST):
		return fmt.Errorf("bpf: %s: %w (%w)", what, errRace, err)
	case errors.Is(err, unix.ERANGE), errors.Is(err, unix.EMSGSIZE):
		return &MissingError{Need: NeedMTU, What: what, Err: err,
			Hint: fmt.Sprintf("the driver takes no program at an MTU of %d: lower it, or use generic mode", ifi.MTU)}
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EINVAL):
		return &MissingError{Need: NeedKernel, What: what, Err: err,
			Hint: "the driver or the kernel does not support it: use generic mode, or a newer kernel"}
	}
	return explain(what, err)
}

// adopt takes part in the program that another process attached.
func adopt(ifi netlink.Link, id ebpf.ProgramID) (*attachment, error) {
	what := fmt.Sprintf("share the program on %q", ifi.Attrs().Name)
	prog, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return nil, gone(what, err)
	}
	defer prog.Close()
	info, err := prog.Info()
	if err != nil {
		return nil, gone(what, err)
	}
	if info.Name != demuxProgKhamsinDemux {
		return nil, &MissingError{Need: NeedInterface, What: what, Err: ErrForeignProgram,
			Hint: fmt.Sprintf("program %d, %q, must be removed first, or another interface used", id, info.Name)}
	}
	a := &attachment{mode: ModeGeneric}
	if ifi.Attrs().Xdp.AttachMode != xdpAttachedGeneric {
		a.mode = ModeNative
	}
	if a.link, err = linkOf(id); err != nil {
		return nil, gone(what, err)
	}
	if err := a.openMaps(info); err != nil {
		return nil, errors.Join(fmt.Errorf("bpf: %s: %w", what, err), a.close())
	}
	return a, nil
}

// xdpAttachedGeneric is the kernel's XDP_ATTACHED_SKB.
const xdpAttachedGeneric = 2

// gone makes errRace of what the system says when something has just been removed.
func gone(what string, err error) error {
	if errors.Is(err, unix.ENOENT) || errors.Is(err, errRace) {
		return fmt.Errorf("bpf: %s: %w", what, errRace)
	}
	return explain(what, err)
}

// linkOf returns the link by which a program is attached.
func linkOf(id ebpf.ProgramID) (link.Link, error) {
	it := new(link.Iterator)
	defer it.Close()
	for it.Next() {
		if info, err := it.Link.Info(); err == nil && info.Type == link.XDPType && info.Program == id {
			return it.Take(), nil
		}
	}
	if err := it.Err(); err != nil {
		return nil, err
	}
	return nil, errRace
}

// openMaps opens the maps of an attached program. They must be what this version would have made.
func (a *attachment) openMaps(info *ebpf.ProgramInfo) error {
	spec, err := loadDemux()
	if err != nil {
		return err
	}
	ids, _ := info.MapIDs()
	for _, id := range ids {
		m, err := ebpf.NewMapFromID(id)
		if err != nil {
			return fmt.Errorf("open map %d: %w", id, err)
		}
		if err := a.keep(m, spec); err != nil {
			return errors.Join(err, m.Close())
		}
	}
	m := &a.maps
	if m.Rules == nil || m.Slots == nil || m.Sockets == nil || m.Counters == nil || m.Directory == nil {
		return ErrOtherVersion
	}
	d, err := table{m}.directory()
	if err == nil && d.Version != layoutVersion {
		err = fmt.Errorf("%w: %d, not %d", ErrOtherVersion, d.Version, layoutVersion)
	}
	return err
}

// keep puts a map in its place. Maps that the compiler made are closed.
func (a *attachment) keep(m *ebpf.Map, spec *ebpf.CollectionSpec) error {
	info, err := m.Info()
	if err != nil {
		return err
	}
	place := map[string]**ebpf.Map{
		demuxMapRules: &a.maps.Rules, demuxMapSlots: &a.maps.Slots, demuxMapSockets: &a.maps.Sockets,
		demuxMapCounters: &a.maps.Counters, demuxMapDirectory: &a.maps.Directory,
	}[info.Name]
	if place == nil {
		return m.Close()
	}
	if want := spec.Maps[info.Name]; m.Type() != want.Type || m.KeySize() != want.KeySize ||
		m.ValueSize() != want.ValueSize || m.MaxEntries() != want.MaxEntries {
		return fmt.Errorf("%w: map %q differs", ErrOtherVersion, info.Name)
	}
	*place = m
	return nil
}
