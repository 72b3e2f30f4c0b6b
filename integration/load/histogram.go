package load

import (
	"math"
	"time"
)

// histogram counts durations in buckets that grow by a tenth, from a microsecond to
// about half an hour.
type histogram struct {
	buckets [230]int
	total   int
	max     time.Duration
}

const growth = 1.1

func (h *histogram) add(d time.Duration) {
	us := max(1, float64(d.Microseconds()))
	i := min(int(math.Log(us)/math.Log(growth)), len(h.buckets)-1)
	h.buckets[i]++
	h.total++
	h.max = max(h.max, d)
}

// quantile returns the upper edge of the bucket that holds the q-th value.
func (h *histogram) quantile(q float64) time.Duration {
	rank := int(math.Ceil(q * float64(h.total)))
	for i, n := range h.buckets {
		if rank -= n; rank <= 0 && h.total > 0 {
			return min(h.max, time.Duration(math.Pow(growth, float64(i+1)))*time.Microsecond)
		}
	}
	return h.max
}
