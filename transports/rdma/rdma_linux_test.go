//go:build cgo && rdma

package rdma

import (
	"errors"
	"os"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/frame"
	"github.com/khamsin-io/khamsin/dataplane/transporttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testGroupPort separates the tests from whoever else uses the device.
const testGroupPort = 18790

// deviceConfig returns a configuration for the device that the environment names. Without one the test is skipped, or
// fails where it must not be.
func deviceConfig(tb testing.TB) Config {
	tb.Helper()
	device := os.Getenv("KHAMSIN_RDMA_DEV")
	if device != "" {
		return Config{Device: device, GroupPort: testGroupPort}
	}
	if required("rdma") {
		tb.Fatal("no RDMA device, which KHAMSIN_REQUIRE demands: KHAMSIN_RDMA_DEV is not set")
	}
	tb.Skip("no RDMA device: KHAMSIN_RDMA_DEV is not set")
	return Config{}
}

// required tells whether KHAMSIN_REQUIRE names a feature.
func required(feature string) bool {
	for _, f := range strings.Split(os.Getenv("KHAMSIN_REQUIRE"), ",") {
		if f == feature {
			return true
		}
	}
	return false
}

// factory makes worlds on the one device. Their arenas are small, because all of it is pinned when it is registered,
// which takes long where the processor is emulated.
func factory(tb testing.TB, without string) transporttest.World {
	base := deviceConfig(tb)
	if without == "inline" {
		base.Inline = -1
	}
	return transporttest.World{
		Open: func(tb testing.TB, o transporttest.Options) dataplane.Transport {
			tb.Helper()
			cfg := base
			cfg.ReceiveDepth = 256
			cfg.Arena = frame.Config{TxChunks: o.Tx, RxRuns: o.Rx}
			if o.Rx == 0 {
				cfg.Arena.RxRuns = 256
			}
			if without == "" { // the other runs are without large frames
				cfg.Large, cfg.LargeDepth = 16<<10, 16
				cfg.Arena.LargeTx, cfg.Arena.LargeRx = 48, 32
			}
			if without != "inline" { // with it, frames of the port's MTU
				cfg.MTU, cfg.Arena.ChunkSize, cfg.Arena.RunChunks = 1400, 2048, 3
			}
			tr, err := Open(cfg)
			if err != nil {
				tb.Fatal(err)
			}
			return tr
		},
	}
}

// The suite, with payloads inlined into work requests and without.
func TestConformance(t *testing.T) {
	transporttest.Run(t, factory, "inline")
}

// openUntilEnd opens a transport that is closed, with its arena whole, when the test ends.
func openUntilEnd(tb testing.TB, change func(*Config)) *Transport {
	tb.Helper()
	cfg := deviceConfig(tb)
	cfg.MTU, cfg.ReceiveDepth = 1400, 256
	cfg.Arena = frame.Config{TxChunks: 512, RxRuns: 256, ChunkSize: 2048}
	if change != nil {
		change(&cfg)
	}
	tr, err := Open(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := tr.Close(); err != nil {
			tb.Error(err)
		}
	})
	return tr
}

// A device that is not there is named, with the reason.
func TestNoDevice(t *testing.T) {
	_, err := Open(Config{Device: "nosuch0"})
	if !errors.Is(err, ErrNoDevice) || !strings.Contains(err.Error(), "no RDMA device: ") {
		t.Errorf("Open: %v", err)
	}
	if _, err := Open(Config{Interface: "lo"}); !errors.Is(err, ErrNoDevice) {
		t.Errorf("Open: %v", err)
	}
}
