//go:build !race

package frame

// setRefs sets the count of a chunk that the calling goroutine alone can reach: it owns the pool's free chunk, or
// holds the chunk's only reference. Whoever else touches the count later got the frame from this goroutine by
// something that synchronises, so a plain store will do; an atomic one would cost as much as everything else Get
// does.
func (a *Arena) setRefs(chunk uint32, n int32) { a.refs[chunk] = n }
