package vsync_test

import (
	"github.com/khamsin-io/khamsin/vsync"
)

// Order is what another version of the program has under the id of Order in package vsync's tests.
type Order struct {
	ID    int64
	Item  string
	Extra float64
}

func init() {
	vsync.OtherVersion.Register = func(s *vsync.System) error { return vsync.Register[Order](s, 5) }
	vsync.OtherVersion.Handle = func(g *vsync.Group, c vsync.Code) error {
		return vsync.Handle2(g, c, func(_ *vsync.Message, o Order, f float64) {})
	}
}
