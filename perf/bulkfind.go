package perf

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// FindBulk replicates objects in the ways that there are, and returns the results, the fastest first: by multicast and
// along a chain, and when there are several objects, one or more at once.
func FindBulk(ctx context.Context, o BulkOptions, command []string, progress func(what string)) ([]*BulkResult, error) {
	if progress == nil {
		progress = func(string) {}
	}
	transfers := []int{o.Transfers}
	if o.Objects > 1 && o.Transfers == 0 {
		transfers = []int{1, 4, 16}
	}
	var results []*BulkResult
	for _, transport := range []string{"udp", "tcp"} {
		for _, n := range transfers {
			o.Transport, o.Transfers = transport, n
			r, err := Bulk(ctx, o, command, func(what string) {
				progress(fmt.Sprintf("%s, %d at once: %s",
					transport, n, what))
			})
			if err != nil {
				return results, fmt.Errorf("%s, %d at once: %w", transport, n, err)
			}
			if !r.Equal {
				return results, fmt.Errorf("%s, %d at once: %w", transport, n, errors.New("the copies differ"))
			}
			results = append(results, r)
		}
	}
	slices.SortStableFunc(results, func(a, b *BulkResult) int { return int((a.Seconds - b.Seconds) * 1e9) })
	return results, nil
}
