package applog

import (
	"bytes"
	"unicode/utf8"
)

// maxLine is how long a line may be that is kept in one piece, in bytes without its end.
const maxLine = 64 << 10

// splitMark ends a piece of a longer line.
const splitMark = " [entrypoint: this line goes on]\n"

// cut says how much of what waits can be written now: whole lines, or else, if one line has most bytes and no end yet, a piece of it,
// which is not cut inside a letter; then split is true. When nothing more can come, over, that is all of it.
func cut(waiting []byte, most int, over bool) (n int, split bool) {
	if i := bytes.LastIndexByte(waiting, '\n'); i >= 0 && !over {
		return i + 1, false
	}
	if over {
		return len(waiting), false
	}
	if len(waiting) < most {
		return 0, false
	}
	n = most
	for back := 1; back < utf8.UTFMax && back < n; back++ {
		if c := waiting[n-back]; utf8.RuneStart(c) {
			if !utf8.FullRune(waiting[n-back : n]) {
				n -= back
			}
			break
		}
	}
	return n, true
}

// fitting is how many bytes of whole lines, of which text consists, fit into room; at least one line.
func fitting(text []byte, room int64) int {
	if int64(len(text)) <= room {
		return len(text)
	}
	if room > 0 {
		if i := bytes.LastIndexByte(text[:room], '\n'); i >= 0 {
			return i + 1
		}
	}
	if i := bytes.IndexByte(text, '\n'); i >= 0 {
		return i + 1
	}
	return len(text)
}

// lineCount counts lines, one without an end included.
func lineCount(text []byte) int {
	n := bytes.Count(text, []byte{'\n'})
	if len(text) > 0 && text[len(text)-1] != '\n' {
		n++
	}
	return n
}
