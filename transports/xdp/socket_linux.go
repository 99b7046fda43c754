package xdp

import (
	"errors"
	"fmt"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/khamsin-io/khamsin/bpf"
)

// socket is an AF_XDP socket on one queue. The first one of a transport has the UMEM; only that one sends. Sockets of
// inlets and outlets, beside it on the queue, have an RX or a TX ring alone, and use its fill and completion rings.
type socket struct {
	fd       int
	queue    int
	rx       *ring[unix.XDPDesc]
	tx       *ring[unix.XDPDesc]
	zeroCopy bool
	wide     bool // frames may take several UMEM chunks

	mu         sync.Mutex // guards what follows
	fill       *ring[uint64]
	completion *ring[uint64]
	returned   []uint64 // completions for the transport that others took off the ring
}

// ringSizes are the slots of a socket's rings. Those that it does not have are zero.
type ringSizes struct{ fill, completion, rx, tx int }

// descContinued marks a descriptor whose packet goes on in the next one (XDP_PKT_CONTD).
const descContinued = 1

// openSocket opens a socket on a queue. umem is the socket that has the UMEM, nil for the first one.
func openSocket(cfg *Config, mem []byte, queue int, umem *socket) (*socket, error) {
	fd, err := unix.Socket(unix.AF_XDP, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, bpf.Explain("open an AF_XDP socket", err)
	}
	s := &socket{fd: fd, queue: queue}
	if umem == nil {
		err = s.register(cfg, mem)
	}
	if err == nil {
		sizes := ringSizes{fill: cfg.fillRing(), completion: cfg.completionRing(), rx: cfg.RxRing}
		if umem == nil {
			sizes.tx = cfg.TxRing
		}
		err = s.makeRings(sizes)
	}
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

// register makes mem the socket's UMEM.
func (s *socket) register(cfg *Config, mem []byte) error {
	chunk := cfg.umemChunk()
	reg := unix.XDPUmemReg{
		Addr: uint64(uintptr(unsafe.Pointer(unsafe.SliceData(mem)))), Len: uint64(len(mem) / chunk * chunk),
		Size: uint32(chunk), Headroom: uint32(cfg.headroom()),
	}
	_, _, errno := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(s.fd), unix.SOL_XDP, unix.XDP_UMEM_REG,
		uintptr(unsafe.Pointer(&reg)), unsafe.Sizeof(reg), 0)
	if errno != 0 {
		return bpf.Explain(fmt.Sprintf("register %d bytes as UMEM", len(mem)), errno)
	}
	return nil
}

// openBeside opens a socket on the queue of another one, with which it shares everything but its own ring.
func openBeside(main *socket, ifIndex int, sizes ringSizes) (*socket, error) {
	fd, err := unix.Socket(unix.AF_XDP, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, bpf.Explain("open an AF_XDP socket", err)
	}
	s := &socket{fd: fd, queue: main.queue, zeroCopy: main.zeroCopy, wide: main.wide}
	if err = s.makeRings(sizes); err == nil {
		err = s.tryBind(&unix.SockaddrXDP{
			Flags: unix.XDP_SHARED_UMEM, Ifindex: uint32(ifIndex), QueueID: uint32(main.queue),
			SharedUmemFD: uint32(main.fd),
		})
	}
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

// makeRings sizes the rings and maps them.
func (s *socket) makeRings(sizes ringSizes) error {
	for _, r := range []struct{ option, size int }{
		{unix.XDP_UMEM_FILL_RING, sizes.fill}, {unix.XDP_UMEM_COMPLETION_RING, sizes.completion},
		{unix.XDP_RX_RING, sizes.rx}, {unix.XDP_TX_RING, sizes.tx},
	} {
		if r.size == 0 {
			continue
		}
		if err := unix.SetsockoptInt(s.fd, unix.SOL_XDP, r.option, r.size); err != nil {
			return bpf.Explain(fmt.Sprintf("make a ring of %d slots", r.size), err)
		}
	}
	var off unix.XDPMmapOffsets
	size := uint32(unsafe.Sizeof(off))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(s.fd), unix.SOL_XDP, unix.XDP_MMAP_OFFSETS,
		uintptr(unsafe.Pointer(&off)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return fmt.Errorf("xdp: layout of the rings: %w", errno)
	}
	var errs [4]error
	s.fill, errs[0] = mapRing[uint64](s.fd, unix.XDP_UMEM_PGOFF_FILL_RING, off.Fr, sizes.fill)
	s.completion, errs[1] = mapRing[uint64](s.fd, unix.XDP_UMEM_PGOFF_COMPLETION_RING, off.Cr, sizes.completion)
	s.rx, errs[2] = mapRing[unix.XDPDesc](s.fd, unix.XDP_PGOFF_RX_RING, off.Rx, sizes.rx)
	s.tx, errs[3] = mapRing[unix.XDPDesc](s.fd, unix.XDP_PGOFF_TX_RING, off.Tx, sizes.tx)
	if err := errors.Join(errs[:]...); err != nil {
		return fmt.Errorf("xdp: %w", err)
	}
	s.returned = make([]uint64, 0, sizes.completion)
	return nil
}

// How often, and after what pause, a bind to a queue that is taken is tried again: a socket that was closed lets go of
// its queue only some milliseconds later.
const (
	bindTries = 250
	bindPause = 4 * time.Millisecond
)

// errNoQueue says that the interface has no queue of a number.
var errNoQueue = errors.New("xdp: no such queue") // immutable: an error

// bind binds the socket to its queue: without copies where the driver can, if wanted, and for frames of several chunks
// where they are needed, or else where the kernel can.
func (s *socket) bind(cfg *Config, ifIndex int, umem *socket, native bool) error {
	sa := &unix.SockaddrXDP{Ifindex: uint32(ifIndex), QueueID: uint32(s.queue)}
	if umem != nil {
		sa.Flags, sa.SharedUmemFD, s.wide = unix.XDP_SHARED_UMEM, uint32(umem.fd), umem.wide
		return s.tryBind(sa)
	}
	if cfg.segments() {
		if err := probeSegments(); err != nil {
			return err
		}
	}
	ways := make([]bool, 0, 2) // with several chunks, and without
	if cfg.segments() || cfg.wideBulk {
		ways = append(ways, true)
	}
	if !cfg.segments() {
		ways = append(ways, false)
	}
	if native && !cfg.DisableZeroCopy {
		err := s.bindOneOf(sa, unix.XDP_ZEROCOPY, ways)
		if err == nil {
			s.zeroCopy = true
			return nil
		}
		if !lacks(err) {
			return err
		}
		cfg.Log.Info("xdp: the driver cannot do without copies, going on with them",
			"interface", cfg.Interface, "queue", s.queue, "error", err)
	}
	return s.bindOneOf(sa, unix.XDP_COPY, ways)
}

// bindOneOf binds in the first way that works.
func (s *socket) bindOneOf(sa *unix.SockaddrXDP, flag uint16, ways []bool) (err error) {
	for _, wide := range ways {
		sa.Flags = unix.XDP_USE_NEED_WAKEUP | flag
		if wide {
			sa.Flags |= unix.XDP_USE_SG
		}
		if err = s.tryBind(sa); err == nil {
			s.wide = wide
		}
		if err == nil || !lacks(err) {
			return err
		}
	}
	return err
}

// lacks tells whether an error of a bind means that kernel or driver cannot do what was asked.
func lacks(err error) bool {
	return errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL) || errors.Is(err, errNoQueue)
}

// probeSegments tells whether the kernel knows packets in several chunks: nil, or a *bpf.MissingError. It binds a
// socket to no interface at all, which is all that a kernel misses that knows them.
func probeSegments() error {
	fd, err := unix.Socket(unix.AF_XDP, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return bpf.Explain("open an AF_XDP socket", err)
	}
	defer func() { _ = unix.Close(fd) }()
	err = unix.Bind(fd, &unix.SockaddrXDP{Flags: unix.XDP_USE_SG | unix.XDP_COPY})
	if errors.Is(err, unix.EINVAL) {
		return &bpf.MissingError{Need: bpf.NeedKernel, What: "packets in several chunks (Linux 6.6)", Err: err,
			Hint: "use a newer kernel, or packets that fit a chunk: a lower MTU"}
	}
	return nil
}

func (s *socket) tryBind(sa *unix.SockaddrXDP) error {
	var err error
	for range bindTries {
		if err = unix.Bind(s.fd, sa); !errors.Is(err, unix.EBUSY) {
			break
		}
		time.Sleep(bindPause)
	}
	what := fmt.Sprintf("bind to queue %d", s.queue)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EBUSY):
		return &bpf.MissingError{Need: bpf.NeedQueue, What: what, Err: err,
			Hint: "another process has it: give this one other queues, or use UDP"}
	case errors.Is(err, unix.EINVAL):
		return &bpf.MissingError{Need: bpf.NeedQueue, What: what, Err: errors.Join(errNoQueue, err),
			Hint: "the interface has no such queue, or the kernel cannot do this: see `ethtool -l`"}
	case errors.Is(err, unix.EOPNOTSUPP):
		return &bpf.MissingError{Need: bpf.NeedKernel, What: what, Err: err,
			Hint: "the driver or the kernel does not support it: use a newer kernel, or another mode"}
	}
	return bpf.Explain(what, err)
}

// busyPollBudget is how many packets the driver may take off a queue in one turn.
const busyPollBudget = 64

// busyPoll makes the socket's reader drive its queue.
func (s *socket) busyPoll(d time.Duration) error {
	return errors.Join(
		unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_PREFER_BUSY_POLL, 1),
		unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_BUSY_POLL, int(max(1, d.Microseconds()))),
		unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_BUSY_POLL_BUDGET, busyPollBudget),
	)
}

// statistics are what the kernel counts for a socket (struct xdp_statistics).
type statistics struct {
	dropped, invalid, txInvalid, rxFull, fillEmpty, txEmpty uint64
}

// lost returns how many packets had no room, in the fill ring or in the RX ring.
func (s *socket) lost() uint64 {
	var st statistics
	size := uint32(unsafe.Sizeof(st))
	_, _, errno := unix.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(s.fd), unix.SOL_XDP, unix.XDP_STATISTICS,
		uintptr(unsafe.Pointer(&st)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return 0
	}
	return st.dropped + st.rxFull
}

// closeFile closes the socket. After that the kernel writes to none of its frames; the rings stay mapped.
func (s *socket) closeFile() error { return unix.Close(s.fd) }

// unmap unmaps the rings.
func (s *socket) unmap() error {
	return errors.Join(s.rx.close(), s.tx.close(), s.fill.close(), s.completion.close())
}

// close closes a socket that was never used.
func (s *socket) close() error { return errors.Join(s.closeFile(), s.unmap()) }
