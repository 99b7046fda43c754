package objects

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	"github.com/khamsin-io/khamsin/oob"
)

func TestKindsOfFaults(t *testing.T) {
	for _, k := range kinds() {
		e := fault(codeFailed, fmt.Errorf("around it: %w", k.err))
		if e.Data.Kind != k.kind || e.Message == "" {
			t.Errorf("%v is %q, want %q", k.err, e.Data.Kind, k.kind)
		}
	}
	if e := fault(codeFailed, errors.New("else")); e.Data.Kind != "failed" {
		t.Errorf("anything else is %q", e.Data.Kind)
	}
	if e := fault(codeFailed, &oob.PartialError{Name: "f"}); e.Data.Kind != "partial" {
		t.Errorf("a partial copy is %q", e.Data.Kind)
	}
}

func TestBytesForPeople(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 3 << 29: "1.5 GiB",
		1<<63 - 1: "8.0 EiB"} {
		if got := Bytes(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"jsonrpc":"2.0","id":1,"method":"put","params":{"name":"x","path":"/f","to":["all"]}}`))
	f.Add([]byte(`{"jsonrpc":"2.0","method":"get","params":{"name":1}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, bad := parse(b)
		if bad != nil {
			if _, err := json.Marshal(reply{ID: r.ID, Error: bad}); err != nil {
				t.Error(err)
			}
			return
		}
		for _, to := range []any{&putParams{}, &getParams{}, &replicateParams{}, &nameParams{}} {
			_ = read(&r, to)
		}
		if _, err := json.Marshal(reply{ID: r.ID}); err != nil {
			t.Error(err)
		}
	})
}
