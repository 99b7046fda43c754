package main

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/khamsin-io/khamsin/vsync"
)

// unitPath is the systemd unit of a dedicated ORACLE.
const unitPath = "../../contrib/khamsin-oracle.service"

// installedAt is where the unit expects this program.
const installedAt = "/usr/local/bin/khamsin"

// unit returns the unit as it is, or with the lines about a key in force.
func unit(t *testing.T, keyed bool) string {
	t.Helper()
	text, err := os.ReadFile(unitPath)
	if err != nil {
		t.Fatal(err)
	}
	if keyed {
		return strings.ReplaceAll(strings.ReplaceAll(string(text), "\n#Load", "\nLoad"), "\n#Exec", "\nExec")
	}
	return string(text)
}

// settings returns the values of a key of a unit; an empty one undoes those before it.
func settings(text, key string) (values []string) {
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), key+"="); ok {
			if values = append(values, value); value == "" {
				values = nil
			}
		}
	}
	return values
}

// systemd finds nothing wrong with the unit.
func TestUnitIsValid(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil && os.Getenv("KHAMSIN_REQUIRE") != "" {
		t.Fatal("systemd-analyze is missing: make deps installs it")
	}
	if err != nil {
		t.Skip("no systemd-analyze")
	}
	self, err := os.Executable() // some program that is there
	if err != nil {
		t.Fatal(err)
	}
	for _, keyed := range []bool{false, true} {
		path := filepath.Join(t.TempDir(), filepath.Base(unitPath))
		text := strings.ReplaceAll(unit(t, keyed), installedAt, self)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command(analyze, "verify", path).CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("with a key %v: %v: %s", keyed, err, out)
		}
	}
}

// What the unit starts, in the surroundings that it asks for, gets ready, has a status socket where the unit says, and
// ends in order; with the lines about a key in force it has a key.
func TestUnitServes(t *testing.T) {
	for _, keyed := range []bool{false, true} {
		text := unit(t, keyed)
		starts, environment := settings(text, "ExecStart"), settings(text, "Environment")
		directory := settings(text, "RuntimeDirectory")
		if len(starts) != 1 || len(environment) != 1 || len(directory) != 1 || settings(text, "Type")[0] != "notify" {
			t.Fatalf("%q, %q, %q", starts, environment, directory)
		}
		root := t.TempDir()
		runtime := filepath.Join(root, "run")
		for path, content := range map[string]string{
			"khamsin.toml": "oracle_size = 1\n", "credentials/key": strings.Repeat("3d", vsync.KeyLen) + "\n",
			"run/nothing": "",
		} {
			path = filepath.Join(root, path)
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(content), 0o400); err != nil {
				t.Fatal(err)
			}
		}
		place := strings.NewReplacer(
			installedAt+" ", "", "/etc/khamsin/khamsin.toml", filepath.Join(root, "khamsin.toml"),
			"${CREDENTIALS_DIRECTORY}", filepath.Join(root, "credentials"), "/run/"+directory[0], runtime,
		)
		socket := filepath.Join(root, "notify")
		systemd, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		args := strings.Fields(place.Replace(starts[0]) + " --system " + filepath.Base(root) + t.Name())
		c := program(t, []string{place.Replace(environment[0]), "NOTIFY_SOCKET=" + socket}, args...)
		var out bytes.Buffer
		c.Stdout, c.Stderr = &out, &out
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 1000)
		_ = systemd.SetReadDeadline(time.Now().Add(20 * time.Second))
		if n, err := systemd.Read(b); err != nil || !bytes.HasPrefix(b[:n], []byte("READY=1")) {
			_ = c.Process.Kill()
			t.Fatalf("with a key %v: said %q, %v: %s", keyed, b[:n], err, &out)
		}
		list, err := vsync.StatusSockets(runtime)
		if err != nil || len(list) != 1 || keyed != strings.Contains(starts[0], "--key-file") {
			t.Errorf("with a key %v: status sockets %v, %v", keyed, list, err)
		}
		if err := c.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if err := c.Wait(); err != nil {
			t.Errorf("with a key %v: %v: %s", keyed, err, &out)
		}
		_ = systemd.Close()
	}
}
