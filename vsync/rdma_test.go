package vsync

import (
	"context"
	"errors"
	"testing"

	"github.com/khamsin-io/khamsin/transports/rdma"
)

// Where there is no RDMA, because it is not built in or no device is there, Start says so.
func TestNoRDMA(t *testing.T) {
	for _, opts := range [][]Option{
		{WithInterfaces("lo")},
		{WithInterfaces("nosuchif0")},
	} {
		_, err := Start(context.Background(), append(opts, WithTransport(RDMA()), WithMute())...)
		if !errors.Is(err, rdma.ErrNotBuilt) && !errors.Is(err, rdma.ErrNoDevice) {
			t.Errorf("Start: %v", err)
		}
	}
	_, err := Start(context.Background(), WithTransport(RDMA()), WithTTL(0), WithMute())
	wantErr(t, "a TTL of 0", err, errStaysOnHost)
	_, err = Start(context.Background(), WithTransport(RDMA()), WithInterfaces("a", "b"), WithMute())
	wantErr(t, "two interfaces", err, errOneInterface)
}
