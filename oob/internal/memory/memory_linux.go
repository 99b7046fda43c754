package memory

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// area is a file that is mapped.
type area struct {
	fd    int
	data  []byte
	since time.Time // when it became a spare
}

// New returns a pool. With a directory, objects are files of it that have no name, so that they take room of its file
// system instead of memory.
func New(dir string, spares Spares) (*Pool, error) {
	p := &Pool{limits: spares, source: source{kind: KindFile, mount: -1, dir: dir}}
	if dir != "" {
		info, err := os.Stat(dir)
		switch {
		case err != nil:
			return nil, fmt.Errorf("directory of objects: %w", err)
		case !info.IsDir():
			return nil, fmt.Errorf("directory of objects: %s is none", dir)
		}
		return p, nil
	}
	p.source.kind = KindFault
	if mount, err := hugeMount(); err == nil {
		p.source.mount, p.source.kind = mount, KindHuge
		return p, nil
	}
	if slow, err := faultsAreSlow(&p.source); err != nil {
		return nil, err
	} else if slow {
		p.source.kind = KindWrite
	}
	return p, nil
}

// hugeMount makes a file system in memory that gives its files huge pages. It is attached nowhere, so nobody sees it,
// and it is gone with its descriptor and its files. It takes privileges.
func hugeMount() (int, error) {
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, err
	}
	defer func() { _ = unix.Close(fs) }()
	if err := unix.FsconfigSetString(fs, "huge", "always"); err != nil {
		return -1, err
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, err
	}
	return unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
}

func (s *source) close() {
	if s.mount >= 0 {
		_ = unix.Close(s.mount)
		s.mount = -1
	}
}

// open makes a file without a name.
func (s *source) open() (int, error) {
	const flags = unix.O_TMPFILE | unix.O_RDWR | unix.O_CLOEXEC
	switch s.kind {
	case KindHuge:
		return unix.Openat(s.mount, ".", flags, 0o600)
	case KindFile:
		fd, err := unix.Open(s.dir, flags, 0o600)
		if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EISDIR) {
			return openRemoved(s.dir)
		}
		return fd, err
	}
	return unix.MemfdCreate("khamsin-object", unix.MFD_CLOEXEC)
}

// openRemoved makes a file and removes its name, where the file system knows no files without one.
func openRemoved(dir string) (int, error) {
	f, err := os.CreateTemp(dir, ".khamsin-object-*")
	if err != nil {
		return -1, err
	}
	defer func() { _ = f.Close() }()
	if err := os.Remove(filepath.Clean(f.Name())); err != nil {
		return -1, err
	}
	return unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
}

// newArea makes a file of size bytes, sets its room aside, and maps it.
func (s *source) newArea(size int64) (*area, error) {
	fd, err := s.open()
	if err != nil {
		return nil, fmt.Errorf("file for an object: %w", err)
	}
	fail := func(err error) (*area, error) {
		_ = unix.Close(fd)
		if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.ENOMEM) || errors.Is(err, unix.EFBIG) {
			return nil, fmt.Errorf("%w: %d bytes in %s: %w", ErrNoSpace, size, s.kind, err)
		}
		return nil, fmt.Errorf("%d bytes in %s: %w", size, s.kind, err)
	}
	if err := setAside(fd, size); err != nil {
		return fail(err)
	}
	data, err := unix.Mmap(fd, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fail(err)
	}
	return &area{fd: fd, data: data}, nil
}

// setAside makes a file size bytes long, so that filling it cannot fail, where the file system can do that. Signals,
// which the Go runtime sends to its own threads too, are kept away meanwhile: Linux 6.1, unlike 6.18, lets one end the
// call for a file in memory, which would begin anew each time.
func setAside(fd int, size int64) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var all, before unix.Sigset_t
	for i := range all.Val {
		all.Val[i] = ^all.Val[i]
	}
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, &all, &before); err != nil {
		return fmt.Errorf("block signals: %w", err)
	}
	err := unix.Fallocate(fd, 0, 0, size)
	if errors.Is(err, unix.EOPNOTSUPP) {
		err = unix.Ftruncate(fd, size)
	}
	return errors.Join(err, unix.PthreadSigmask(unix.SIG_SETMASK, &before, nil))
}

func (a *area) close() {
	_ = unix.Munmap(a.data)
	_ = unix.Close(a.fd)
}

// WriteAt puts bytes at an offset of the block.
func (b *Block) WriteAt(p []byte, off int64) error {
	for len(p) > 0 {
		n, err := unix.Pwrite(b.area.fd, p, b.off+off)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
				return fmt.Errorf("%w: %w", ErrNoSpace, err)
			}
			return err
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

// Edit maps the block once more, so that its bytes can be changed without changing the block. It is ended by the
// function that comes with it.
func (b *Block) Edit() (data []byte, end func(), err error) {
	if b.area == nil {
		return nil, func() {}, nil
	}
	data, err = unix.Mmap(b.area.fd, b.off, len(b.Data), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE)
	if err != nil {
		return nil, nil, fmt.Errorf("map an object for changes: %w", err)
	}
	return data, func() { _ = unix.Munmap(data) }, nil
}

// Map returns a file's bytes, mapped for reading, as the memory of an object. The file must not get shorter.
func Map(path string) (*Block, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		_ = unix.Close(fd)
		if err == nil {
			err = errors.New("it is no regular file")
		}
		return nil, &os.PathError{Op: "map", Path: path, Err: err}
	}
	b := &Block{pool: &Pool{source: source{kind: KindFile, mount: -1}}}
	if st.Size == 0 {
		return b, unix.Close(fd)
	}
	data, err := unix.Mmap(fd, 0, int(st.Size), unix.PROT_READ, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		_ = unix.Close(fd)
		return nil, &os.PathError{Op: "map", Path: path, Err: err}
	}
	b.area = &area{fd: fd, data: data}
	b.Data = data
	return b, nil
}

// faultsAreSlow measures whether filling fresh pages in place takes longer than writing them.
func faultsAreSlow(s *source) (bool, error) {
	const size = 1 << 20
	from := make([]byte, size)
	var took [2]time.Duration
	for i := range took {
		a, err := s.newArea(size)
		if err != nil {
			return false, err
		}
		began := time.Now()
		if i == 0 {
			copy(a.data, from)
		} else {
			b := Block{area: a}
			err = b.WriteAt(from, 0)
		}
		took[i] = time.Since(began)
		a.close()
		if err != nil {
			return false, err
		}
	}
	return took[0] > took[1], nil
}
