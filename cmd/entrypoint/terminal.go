package main

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// The columns that a page may have: below the least a table of generations does not fit, beyond the most lines are hard to read.
const (
	leastColumns = 60
	mostColumns  = 200
)

// terminalSize is how many columns and rows the terminal behind our standard output has; rows are 0 where it is none. Without a
// terminal COLUMNS decides, as it does for other programs, else it is the usual width.
func terminalSize(getenv func(string) string) (columns, rows int) {
	size, err := unix.IoctlGetWinsize(int(os.Stdout.Fd()), unix.TIOCGWINSZ)
	if err == nil && size.Col > 0 {
		return clampColumns(int(size.Col)), int(size.Row)
	}
	n, err := strconv.Atoi(getenv("COLUMNS"))
	if err != nil || n <= 0 {
		n = width
	}
	return clampColumns(n), 0
}

func clampColumns(n int) int { return min(max(n, leastColumns), mostColumns) }
