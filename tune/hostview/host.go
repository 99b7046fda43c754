// Package hostview is the narrow window through which the tuning tools see a computer: text files below a root, and the
// few system calls that no file answers. Package tune judges what it shows, package apply changes through it.
//
// A Host may be this computer (Here), a tree of files copied from another one (Copy), or whatever a test makes up. What
// cannot be read is an error with a reason, never a guess. Nothing here keeps state, and any goroutine may call it; the
// network namespace is that of the calling thread.
package hostview

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// textMax is the longest file that is read. What is longer is no setting.
const textMax = 1 << 20

// Errors of reading.
var (
	ErrGarbage = errors.New("is not what such a file holds")
	ErrForeign = errors.New("files of another computer: its kernel cannot be asked")
)

// Host is one computer as the tuning tools see it.
type Host struct {
	root   string
	system System
}

// At returns the host whose files lie below root, "/" for the real ones, and whose kernel answers through system.
func At(root string, system System) *Host { return &Host{root: root, system: system} }

// Copy returns a host of which there are only files, copied to the directory root.
func Copy(root string) *Host { return At(root, foreign{}) }

// System returns what answers the questions that files do not.
func (h *Host) System() System { return h.system }

// Path returns where a file of the host lies on this computer. The path cannot leave the root.
func (h *Host) Path(path string) string { return filepath.Join(h.root, filepath.Clean("/"+path)) }

// Text returns a file's content without the white space around it.
func (h *Host) Text(path string) (string, error) {
	file, err := os.Open(h.Path(path))
	if err != nil {
		return "", plain(path, err)
	}
	data, err := io.ReadAll(io.LimitReader(file, textMax+1))
	if err := errors.Join(err, file.Close()); err != nil {
		return "", plain(path, err)
	}
	if len(data) > textMax || !utf8.Valid(data) || strings.ContainsRune(string(data), 0) {
		return "", fmt.Errorf("%s %w", path, ErrGarbage)
	}
	return strings.TrimSpace(string(data)), nil
}

// Int returns the one whole number that a file holds.
func (h *Host) Int(path string) (int64, error) {
	all, err := h.Ints(path)
	if err != nil {
		return 0, err
	}
	if len(all) != 1 {
		return 0, fmt.Errorf("%s %w: %d numbers, want one", path, ErrGarbage, len(all))
	}
	return all[0], nil
}

// Ints returns the whole numbers that a file holds, at least one.
func (h *Host) Ints(path string) ([]int64, error) {
	text, err := h.Text(path)
	if err != nil {
		return nil, err
	}
	var all []int64
	for field := range strings.FieldsSeq(text) {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("%s %w: %q is no number", path, ErrGarbage, short(field))
		}
		all = append(all, n)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s %w: it is empty", path, ErrGarbage)
	}
	return all, nil
}

// Names returns the sorted names in a directory.
func (h *Host) Names(dir string) ([]string, error) {
	entries, err := os.ReadDir(h.Path(dir))
	if err != nil {
		return nil, plain(dir, err)
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	slices.Sort(names)
	return names, nil
}

// Exists tells whether there is such a file or directory.
func (h *Host) Exists(path string) bool {
	_, err := os.Stat(h.Path(path))
	return err == nil
}

// Writable returns nil when a file that exists could be written, without writing to it.
func (h *Host) Writable(path string) error {
	file, err := os.OpenFile(h.Path(path), os.O_WRONLY, 0)
	if err != nil {
		return plain(path, err)
	}
	return file.Close()
}

// Write replaces a file's content in one system call, as the files of /proc and /sys want it. It makes no file.
func (h *Host) Write(path, text string) error {
	file, err := os.OpenFile(h.Path(path), os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return plain(path, err)
	}
	_, err = file.WriteString(text + "\n")
	return plain(path, errors.Join(err, file.Close()))
}

// plain says which file of the host an error is about, whatever the root.
func plain(path string, err error) error {
	var at *fs.PathError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &at):
		err = at.Err
	}
	return fmt.Errorf("%s: %w", path, err)
}

// short cuts what a message quotes.
func short(s string) string {
	const quoteMax = 40
	if len(s) > quoteMax {
		return s[:quoteMax] + "…"
	}
	return s
}
