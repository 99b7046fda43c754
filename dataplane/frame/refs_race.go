//go:build race

package frame

import "sync/atomic"

// setRefs is atomic under the race detector, because Outstanding may look at any time.
func (a *Arena) setRefs(chunk uint32, n int32) { atomic.StoreInt32(&a.refs[chunk], n) }
