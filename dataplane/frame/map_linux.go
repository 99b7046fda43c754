package frame

import "golang.org/x/sys/unix"

// hugePage is the size that a mapping in huge pages is rounded up to.
const hugePage = 2 << 20

// mapMemory maps size bytes of a memfd, shared, and tells whether they lie in huge pages. The mapping keeps the file
// alive.
func mapMemory(size int, huge bool) (mem []byte, inHuge bool, err error) {
	if huge {
		rounded := (size + hugePage - 1) &^ (hugePage - 1)
		if mem, err := mapFile(rounded, unix.MFD_HUGETLB); err == nil {
			return mem, true, nil // what is beyond size is never handed out
		}
	}
	mem, err = mapFile(size, 0)
	return mem, false, err
}

func mapFile(size, flags int) ([]byte, error) {
	fd, err := unix.MemfdCreate("khamsin-arena", unix.MFD_CLOEXEC|flags)
	if err != nil {
		return nil, err
	}
	defer func() { _ = unix.Close(fd) }()
	if err := unix.Ftruncate(fd, int64(size)); err != nil {
		return nil, err
	}
	return unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
}

func unmapMemory(mem []byte) error { return unix.Munmap(mem) }
