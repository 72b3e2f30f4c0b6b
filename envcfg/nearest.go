package envcfg

// nearest returns the candidate that name was probably meant to be, or "".
// Really near means: one edit for short names, two for names of six and more
// letters; an edit is an insertion, a deletion, a replacement or a swap of
// neighbours. Of several equally near ones the first wins.
func nearest(name string, candidates []string) string {
	allowed := 1
	if len(name) >= 6 {
		allowed = 2
	}
	if len(name) < 3 || len(name) > 64 {
		return ""
	}
	best, bestDistance := "", allowed+1
	for _, c := range candidates {
		if gap := len(c) - len(name); gap >= bestDistance || -gap >= bestDistance {
			continue
		}
		if d := distance(name, c); d < bestDistance {
			best, bestDistance = c, d
		}
	}
	return best
}

// distance counts the edits between a and b (optimal string alignment).
func distance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
