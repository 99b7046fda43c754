package apply

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// DefaultJournal is where the journal lies, below the host's root.
const DefaultJournal = "/var/lib/khamsin/tune.journal"

// ErrBusy means that another run has the journal.
var ErrBusy = errors.New("another run of khamsin tune is at work")

// journalMax is the longest journal that is read.
const journalMax = 16 << 20

// journal is the open file of a run.
type journal struct {
	file    *os.File
	entries []entry // of earlier runs
	size    int64   // bytes of them
}

// openJournal opens and locks a journal and reads what earlier runs wrote. Without create a missing one is
// os.ErrNotExist.
func openJournal(path string, create bool) (*journal, error) {
	flags := os.O_RDWR
	if create {
		flags |= os.O_CREATE
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return nil, err
		}
	}
	file, err := os.OpenFile(path, flags, 0o600)
	if err != nil {
		return nil, err
	}
	j := &journal{file: file}
	if err := j.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), file.Close())
	}
	return j, nil
}

func (j *journal) load() error {
	if err := lock(j.file); err != nil {
		return err
	}
	mine, err := j.file.Stat()
	if err != nil {
		return err
	}
	if !mine.Mode().IsRegular() {
		return errors.New("not a regular file")
	}
	// A run that ended between the opening and the lock may have deleted the file, which would then be nobody's.
	if there, err := os.Stat(j.file.Name()); err != nil || !os.SameFile(mine, there) {
		return ErrBusy
	}
	data, err := io.ReadAll(io.LimitReader(j.file, journalMax+1))
	if err != nil {
		return err
	}
	if len(data) > journalMax {
		return fmt.Errorf("longer than %d bytes: no journal", journalMax)
	}
	entries, good, err := decodeAll(string(data))
	if err != nil {
		return err
	}
	j.entries, j.size = entries, int64(good)
	return nil
}

// add writes entries behind the good part and flushes them to the disk, its directory included. After an error the
// journal is as before, as far as the disk allows; a torn line is harmless.
func (j *journal) add(entries []entry) error {
	var b strings.Builder
	for _, e := range entries {
		line, err := e.encode()
		if err != nil {
			return err
		}
		b.WriteString(line)
	}
	err := j.file.Truncate(j.size)
	if err == nil {
		_, err = j.file.WriteAt([]byte(b.String()), j.size)
	}
	if err == nil {
		err = j.file.Sync()
	}
	if err == nil {
		err = syncDir(filepath.Dir(j.file.Name()))
	}
	if err != nil {
		return errors.Join(err, j.file.Truncate(j.size))
	}
	j.size += int64(b.Len())
	j.entries = append(j.entries, entries...)
	return nil
}

// remove deletes the journal: everything in it is undone.
func (j *journal) remove() error {
	if err := os.Remove(j.file.Name()); err != nil {
		return err
	}
	return syncDir(filepath.Dir(j.file.Name()))
}

// close lets go of the journal, which the next run may take. A journal without entries is not left behind.
func (j *journal) close() error {
	var err error
	if j.size == 0 {
		if err = j.remove(); errors.Is(err, os.ErrNotExist) {
			err = nil
		}
	}
	return errors.Join(err, j.file.Close())
}

// syncDir makes the names in a directory durable.
func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
