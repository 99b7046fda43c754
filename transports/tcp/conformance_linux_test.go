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
				tr, err := Open(Config{
					RecvBuffer: o.Buffer, SendBuffer: o.Buffer, Arena: frame.Config{TxChunks: o.Tx, RxRuns: o.Rx},
				})
				if err != nil {
					tb.Fatal(err)
				}
				return tr
			},
		}
	})
}
