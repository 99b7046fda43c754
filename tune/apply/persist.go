package apply

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/khamsin-io/khamsin/tune"
	"github.com/khamsin-io/khamsin/tune/hostview"
)

// The files that make changes again when the host starts, below its root.
const (
	SysctlFile = "/etc/sysctl.d/90-khamsin.conf"
	UnitFile   = "/etc/systemd/system/khamsin-tune.service"
	unitLink   = "/etc/systemd/system/multi-user.target.wants/khamsin-tune.service"
)

const madeBy = "# Written by khamsin tune apply --persist; khamsin tune apply --revert removes it.\n"

// File is a file that Apply would write.
type File struct{ Path, Text string }

// Files returns what Apply would write for Options.Persist. It writes nothing.
func Files(h *hostview.Host, changes []tune.Change) ([]File, error) {
	entries, err := persistent(h, changes)
	var files []File
	for _, e := range entries {
		text := e.New
		if e.Kind == kindLink {
			text = "-> " + e.New
		}
		files = append(files, File{Path: e.Target, Text: text})
	}
	return files, err
}

// persistent returns the entries of the files that make changes again. What earlier runs put there stays.
func persistent(h *hostview.Host, changes []tune.Change) ([]entry, error) {
	var plan []entry
	var sysctls, commands []string
	for _, c := range changes {
		if c.Kind == tune.Sysctl {
			sysctls = append(sysctls, fmt.Sprintf("%s = %s", c.Target, c.Value))
		} else {
			commands = append(commands, c.Command())
		}
	}
	if len(sysctls) > 0 {
		e, err := fileEntry(h, SysctlFile, func(old string) string { return sysctlText(old, sysctls) })
		if err != nil {
			return nil, err
		}
		plan = append(plan, e...)
	}
	if len(commands) > 0 {
		e, err := fileEntry(h, UnitFile, func(old string) string { return unitText(old, commands) })
		if err != nil {
			return nil, err
		}
		plan = append(plan, e...)
		if _, err := os.Lstat(h.Path(unitLink)); errors.Is(err, os.ErrNotExist) {
			plan = append(plan, entry{Kind: kindLink, Target: unitLink, New: UnitFile, Absent: true})
		}
	}
	return plan, nil
}

// fileEntry returns the entry of a file that gets new content, none when it has that already.
func fileEntry(h *hostview.Host, path string, text func(old string) string) ([]entry, error) {
	old, err := os.ReadFile(h.Path(path))
	absent := errors.Is(err, os.ErrNotExist)
	if err != nil && !absent {
		return nil, err
	}
	fresh := text(string(old))
	if fresh == string(old) {
		return nil, nil
	}
	return []entry{{Kind: kindFile, Target: path, Old: string(old), New: fresh, Absent: absent}}, nil
}

// sysctlText returns old with the lines of the same names replaced and the others kept.
func sysctlText(old string, lines []string) string {
	name := func(line string) string {
		before, _, _ := strings.Cut(line, "=")
		return strings.TrimSpace(before)
	}
	var kept []string
	for line := range strings.Lines(old) {
		line = strings.TrimRight(line, "\n")
		same := func(l string) bool { return name(l) == name(line) }
		if line != "" && !strings.HasPrefix(line, "#") && !slices.ContainsFunc(lines, same) {
			kept = append(kept, line)
		}
	}
	return madeBy + strings.Join(append(kept, lines...), "\n") + "\n"
}

const execStart = "ExecStart=/bin/sh -c "

// unitText returns a unit that runs the commands of old and new ones.
func unitText(old string, commands []string) string {
	var lines []string
	for line := range strings.Lines(old) {
		if line = strings.TrimRight(line, "\n"); strings.HasPrefix(line, execStart) {
			lines = append(lines, line)
		}
	}
	for _, c := range commands {
		if line := execStart + unitQuote(c); !slices.Contains(lines, line) {
			lines = append(lines, line)
		}
	}
	return madeBy + `[Unit]
Description=Settings of interfaces and devices for Khamsin
After=network.target

[Service]
Type=oneshot
RemainAfterExit=yes
` + strings.Join(lines, "\n") + `

[Install]
WantedBy=multi-user.target
`
}

// unitQuote makes text one argument in a unit file, where a percent sign and a dollar sign have a meaning of their own.
func unitQuote(text string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, `%`, `%%`, `$`, `$$`).Replace(text) + `"`
}

// makeFile makes what an entry announces: a whole file or a symbolic link, at once or not at all.
func makeFile(h *hostview.Host, e entry) error {
	path := h.Path(e.Target)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if e.Kind == kindLink {
		if err := os.Symlink(e.New, path); err != nil {
			return err
		}
		return syncDir(filepath.Dir(path))
	}
	return replaceFile(path, e.New)
}

// replaceFile gives a file new content so that a crash leaves the old one or the new one.
func replaceFile(path, text string) (err error) {
	temp, err := os.CreateTemp(filepath.Dir(path), ".khamsin-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(temp.Name()))
		}
	}()
	_, err = temp.WriteString(text)
	const readable = 0o644
	if err = errors.Join(err, temp.Chmod(readable), temp.Sync(), temp.Close()); err != nil {
		return err
	}
	if err := os.Rename(temp.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// unmakeFile undoes makeFile, unless somebody changed the file meanwhile, which the note says.
func unmakeFile(h *hostview.Host, e entry) (note string, err error) {
	path := h.Path(e.Target)
	var now string
	if e.Kind == kindLink {
		now, err = os.Readlink(path)
	} else {
		var data []byte
		data, err = os.ReadFile(path)
		now = string(data)
	}
	switch {
	case errors.Is(err, os.ErrNotExist) && e.Absent:
		return "", nil // was not made, or is gone already
	case errors.Is(err, os.ErrNotExist):
		return "left alone: somebody deleted it since", nil
	case err != nil:
		return "", err
	case !e.Absent && now == e.Old:
		return "", nil
	case now != e.New:
		return "left alone: somebody changed it since", nil
	case !e.Absent:
		return "", replaceFile(path, e.Old)
	}
	if err := os.Remove(path); err != nil {
		return "", err
	}
	return "", syncDir(filepath.Dir(path))
}
