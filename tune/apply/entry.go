package apply

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"strconv"
	"strings"

	"github.com/khamsin-io/khamsin/tune"
)

// entry is one line of a journal: an intention, and what was there before.
type entry struct {
	Kind   tune.ChangeKind `json:"kind"`
	Target string          `json:"target"`
	Old    string          `json:"old"`
	New    string          `json:"new"`
	Absent bool            `json:"absent,omitempty"` // of a file: there was none
}

// The kinds of entries beside those of changes.
const (
	kindFile tune.ChangeKind = "file"    // a whole file; Old and New are its contents
	kindLink tune.ChangeKind = "symlink" // New is where it points to
)

// change returns the setting of an entry.
func (e entry) change() tune.Change { return tune.Change{Kind: e.Kind, Target: e.Target, Value: e.New} }

// isFile tells whether the entry is about a file that was made, not about a setting.
func (e entry) isFile() bool { return e.Kind == kindFile || e.Kind == kindLink }

// encode returns the entry's line: a check sum, a blank, JSON.
func (e entry) encode() (string, error) {
	text, err := json.Marshal(e)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%08x %s\n", crc32.ChecksumIEEE(text), text), nil
}

// errDamaged says that a line is not what encode made.
var errDamaged = errors.New("damaged") // immutable: an error

// decode reads a line without its end.
func decode(line string) (entry, error) {
	sum, text, ok := strings.Cut(line, " ")
	want, err := strconv.ParseUint(sum, 16, 32)
	if !ok || err != nil || crc32.ChecksumIEEE([]byte(text)) != uint32(want) {
		return entry{}, errDamaged
	}
	var e entry
	if err := json.Unmarshal([]byte(text), &e); err != nil {
		return entry{}, errDamaged
	}
	switch e.Kind {
	case tune.Sysctl, tune.SysFS, tune.MTU, tune.Rings, kindFile, kindLink:
		return e, nil
	}
	return entry{}, fmt.Errorf("kind %q is of another version", e.Kind)
}

// decodeAll reads a journal. A last line without an end was torn off by a crash while it was written: what it announced
// was not done, and it is left out. The second result is where the good part ends.
func decodeAll(text string) ([]entry, int, error) {
	var all []entry
	good := 0
	for n := 1; ; n++ {
		end := strings.IndexByte(text[good:], '\n')
		if end < 0 {
			return all, good, nil
		}
		e, err := decode(text[good : good+end])
		if err != nil {
			return nil, 0, fmt.Errorf("line %d: %w", n, err)
		}
		all = append(all, e)
		good += end + 1
	}
}
