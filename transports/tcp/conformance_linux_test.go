package tcp

import (
	"testing"

	"github.com/khamsin-io/khamsin/dataplane"
	"github.com/khamsin-io/khamsin/dataplane/frame"
	"github.com/khamsin-io/khamsin/dataplane/transporttest"
)

// The suite on the loopback.
//
// rows: TRN-03, TRN-05
func TestConformance(t *testing.T) {
	transporttest.Run(t, func(testing.TB, string) transporttest.World {
		return transporttest.World{
			Open: func(tb testing.TB, o transporttest.Options) dataplane.Transport {
				tb.Helper()
				cfg := configFor(o)
				cfg.Interface = DefaultInterface
				tr, err := Open(cfg)
				if err != nil {
					tb.Fatal(err)
				}
				return tr
			},
		}
	})
}

// configFor returns the configuration that the suite asks for, on the interface of a test's host.
func configFor(o transporttest.Options) Config {
	return Config{
		Interface: "veth0", RecvBuffer: o.Buffer, SendBuffer: o.Buffer,
		Arena: frame.Config{TxChunks: o.Tx, RxRuns: o.Rx},
	}
}
