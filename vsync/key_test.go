package vsync

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A key's file has 64 hexadecimal digits, and is for its owner and group alone.
//
// rows: SEC-13
func TestKeyFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	digits := strings.Repeat("c4", KeyLen)
	for _, c := range []struct {
		text  string
		mode  os.FileMode
		fault string // empty: none
	}{
		{digits, 0o600, ""}, {" " + digits + "\r\n", 0o640, ""}, {strings.ToUpper(digits), 0o400, ""},
		{digits, 0o644, "everybody"}, {digits, 0o602, "everybody"}, {digits, 0o601, "everybody"},
		{digits[1:], 0o600, "hexadecimal"}, {digits + "c4", 0o600, "hexadecimal"}, {"", 0o600, "hexadecimal"},
		{digits[2:] + "xy", 0o600, "hexadecimal"},
	} {
		must(os.WriteFile(path, []byte(c.text), 0o600))
		must(os.Chmod(path, c.mode))
		key, err := KeyFile(path)()
		switch {
		case c.fault == "" && (err != nil || !bytes.Equal(key, bytes.Repeat([]byte{0xc4}, KeyLen))):
			t.Errorf("%q, mode %o: %x, %v", c.text, c.mode, key, err)
		case c.fault != "" && (err == nil || !strings.Contains(err.Error(), c.fault) || key != nil):
			t.Errorf("%q, mode %o: %x, %v; want a fault with %q", c.text, c.mode, key, err, c.fault)
		}
		if err != nil && len(c.text) > 10 && strings.Contains(err.Error(), c.text[:10]) {
			t.Errorf("the error shows the key: %v", err)
		}
		must(os.Remove(path))
	}
	if _, err := KeyFile(path)(); err == nil {
		t.Error("no file, and no fault")
	}
}
