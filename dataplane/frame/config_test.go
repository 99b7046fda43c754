package frame

import (
	"strings"
	"testing"
)

func TestConfigDefaults(t *testing.T) {
	a := open(t, Config{TxChunks: 1})
	want := Config{ChunkSize: 2048, TxChunks: 1, RunChunks: 1, LargeRun: 1, Headroom: 384}
	if got := a.Config(); got != want {
		t.Fatalf("config %+v, want %+v", got, want)
	}
	if got := len(a.Memory()); got < 2*2048 {
		t.Fatalf("%d bytes of memory", got)
	}
}

func TestConfigFaults(t *testing.T) {
	for name, tc := range map[string]struct {
		cfg  Config
		want []string
	}{
		"empty":       {Config{}, []string{"arena would be empty"}},
		"chunk size":  {Config{ChunkSize: 3000, TxChunks: 1}, []string{"ChunkSize 3000 is not a power of two"}},
		"tiny chunks": {Config{ChunkSize: 128, TxChunks: 1, Headroom: 1}, []string{"ChunkSize 128"}},
		"huge chunks": {Config{ChunkSize: 1 << 21, TxChunks: 1}, []string{"ChunkSize 2097152"}},
		"headroom":    {Config{ChunkSize: 256, TxChunks: 1}, []string{"Headroom 384 does not leave room"}},
		"too much":    {Config{TxChunks: 1<<31 - 1}, []string{"the arena would have more than"}},
		"large":       {Config{TxChunks: 1, LargeTx: -1}, []string{"LargeTx -1"}},
		"large run":   {Config{TxChunks: 1, LargeRx: 1, LargeRun: 1 << 20}, []string{"LargeRun 1048576"}},
		"long run":    {Config{RxRuns: 1, RunChunks: 1 << 20}, []string{"RunChunks 1048576"}},
		"all at once": {Config{TxChunks: -1, RxRuns: -2, RunChunks: -3}, []string{
			"TxChunks -1", "RxRuns -2", "RunChunks -3",
		}},
		"neg headroom": {Config{TxChunks: 1, Headroom: -1}, []string{"Headroom -1"}},
	} {
		t.Run(name, func(t *testing.T) {
			a, err := New(tc.cfg)
			if err == nil {
				t.Fatalf("New accepted %+v: %v", tc.cfg, a.Close())
			}
			for _, want := range tc.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q does not say %q", err, want)
				}
			}
		})
	}
}

// Huge pages are an offer: where the host has none the arena works on small ones.
func TestHugePagesFallBack(t *testing.T) {
	a := open(t, Config{TxChunks: 4, HugePages: true})
	f := get(t, a.Tx())
	f.Len = 5
	copy(a.Bytes(f), "works")
	if string(a.Bytes(f)) != "works" {
		t.Fatal("memory does not hold what was written")
	}
	a.Tx().Release(f)
	t.Logf("huge pages: %v", a.HugePages())
}
