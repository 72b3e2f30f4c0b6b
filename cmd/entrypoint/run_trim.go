package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"time"
)

// calmAfter is how long nothing must have changed before memory is given back: a swap and the drain that follows are over
// by then in the usual case, and what is given back is not needed again a moment later.
const calmAfter = 2 * time.Second

// gcPercent keeps the heap of PID 1, which is small and seldom written, near what is live: at the default of 100 the
// runtime lets it grow to 4 MiB before it looks the first time.
const gcPercent = 20

// trim gives back, once after each time of change, what the heap does not use and the pages of our own executable that starting and swapping have touched:
// they are clean copies of the file in the page cache and come back by themselves when they are needed. An idle init is then
// about as small as what it really uses. Nothing runs in between.
func (p *initProcess) trim(ctx context.Context) {
	for {
		select {
		case <-p.changed:
		case <-ctx.Done():
			return
		}
		for calm := false; !calm; {
			select {
			case <-p.changed:
			case <-time.After(calmAfter):
				calm = true
			case <-ctx.Done():
				return
			}
		}
		debug.SetGCPercent(gcPercent)
		runtime.GC() // pools keep what they have until the second collection: among that are the pipes through which connections were relayed
		debug.FreeOSMemory()
		dropExecutablePages()
	}
}

// dropExecutablePages advises the kernel that the read-only mappings of our executable are not needed now. A mapping of
// which any page was written, as relocation does, is left alone: its pages are not in the file.
func dropExecutablePages() {
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	smaps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		return
	}
	var from, to uintptr
	lines := bufio.NewScanner(bytes.NewReader(smaps))
	for lines.Scan() {
		line := lines.Text()
		if anon, ok := strings.CutPrefix(line, "Anonymous:"); ok {
			if from != 0 && strings.TrimSpace(anon) == "0 kB" {
				_, _, _ = syscall.Syscall(syscall.SYS_MADVISE, from, to-from, syscall.MADV_DONTNEED)
			}
			from = 0
			continue
		}
		var perms string
		var a, b uintptr
		if n, _ := fmt.Sscanf(line, "%x-%x %s", &a, &b, &perms); n == 3 {
			from, to = 0, 0
			if strings.HasSuffix(line, " "+exe) && (perms == "r-xp" || perms == "r--p") {
				from, to = a, b
			}
		}
	}
}
