package face

import (
	"bufio"
	"encoding/hex"
	"io"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hotswap-init/entrypoint/internal/swap"
)

// States of /proc/net/tcp in which a connection is no longer, or not yet, the program's.
const (
	tcpSynRecv  = "03"
	tcpTimeWait = "06"
	tcpClose    = "07"
	tcpListen   = "0A"
	tcpNewSyn   = "0C"
)

// listener is where connections of one held address end.
type listener struct {
	name string
	at   netip.AddrPort
}

// tcpListeners are the held TCP addresses.
func tcpListeners(st *swap.Status) (all []listener) {
	for _, s := range st.Sockets {
		scheme, where, _ := strings.Cut(s.Address, "://")
		at, err := netip.ParseAddrPort(where)
		if strings.HasPrefix(scheme, "tcp") && err == nil && len(all) < maxListeners {
			all = append(all, listener{s.Name, netip.AddrPortFrom(at.Addr().WithZone(""), at.Port())})
		}
	}
	return all
}

// censusShare keeps counting below a tenth of a processor, however long the lists are and however many ask.
const censusShare = 10

// census counts connections for all who ask, one count after the other.
type census struct {
	mu     sync.Mutex
	counts map[string]int
	at     time.Time     // when the last count ended
	took   time.Duration // of a processor, not of the clock: what is busy or stands still makes no count an old one
}

// censuses has one for each app.
type censuses struct {
	mu sync.Mutex
	by map[string]*census
}

func (c *censuses) of(app string) *census {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.by == nil {
		c.by = map[string]*census{}
	}
	if c.by[app] == nil {
		c.by[app] = &census{}
	}
	return c.by[app]
}

// take counts, or gives the last count, if that is not older than ten times what it took. What it gives must not be changed.
func (c *census) take(st *swap.Status, root string) map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.at.IsZero() && time.Since(c.at) < censusShare*c.took {
		return c.counts
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	began := used()
	c.counts = countConnections(st, root)
	c.at, c.took = time.Now(), used()-began
	return c.counts
}

// used is what this thread has had of a processor.
func used() time.Duration {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t) // a clock that every thread has
	return time.Duration(t.Nano())
}

// countConnections counts the accepted connections of the held TCP addresses, by listener, from what the kernel shows to everybody in this network
// namespace. It is called by the helper, never by PID 1: the lists may be long. nil if there is nothing to count or to read.
func countConnections(st *swap.Status, root string) map[string]int {
	all := tcpListeners(st)
	if len(all) == 0 {
		return nil
	}
	counts := map[string]int{}
	for _, l := range all {
		counts[l.name] = 0
	}
	known := false
	for _, file := range []string{"tcp", "tcp6"} {
		f, err := os.Open(root + "/self/net/" + file)
		if err != nil {
			continue
		}
		known = countIn(f, all, counts, file == "tcp6") || known
		f.Close()
	}
	if !known {
		return nil
	}
	return counts
}

// countIn reads one list, line by line. It tells whether it was one.
func countIn(r io.Reader, all []listener, counts map[string]int, six bool) bool {
	in := bufio.NewScanner(r)
	header := in.Scan()
	for in.Scan() {
		f := strings.Fields(in.Text())
		if len(f) < 10 || f[9] == "0" { // without an inode it is not accepted yet, or closed
			continue
		}
		switch f[3] {
		case tcpListen, tcpTimeWait, tcpClose, tcpSynRecv, tcpNewSyn:
			continue
		}
		if at, ok := parseHexAddress(f[1]); ok {
			if name, ok := owner(all, at, six); ok {
				counts[name]++
			}
		}
	}
	return header && in.Err() == nil
}

// owner finds the listener of a connection's own end: the one of exactly that address, or of all addresses of its family.
func owner(all []listener, at netip.AddrPort, six bool) (name string, found bool) {
	for _, l := range all {
		switch {
		case l.at.Port() != at.Port():
		case l.at.Addr().Unmap() == at.Addr().Unmap():
			return l.name, true
		case l.at.Addr().IsUnspecified() && l.at.Addr().Is6() == six:
			name, found = l.name, true
		}
	}
	return name, found
}

// parseHexAddress reads an address as /proc/net/tcp has it: words of four bytes in the machine's order, in hexadecimal.
func parseHexAddress(text string) (netip.AddrPort, bool) {
	host, port, _ := strings.Cut(text, ":")
	b, err := hex.DecodeString(host)
	n, err2 := strconv.ParseUint(port, 16, 16)
	if err != nil || err2 != nil || len(b) != 4 && len(b) != 16 {
		return netip.AddrPort{}, false
	}
	if littleEndian {
		for i := 0; i < len(b); i += 4 {
			b[i], b[i+1], b[i+2], b[i+3] = b[i+3], b[i+2], b[i+1], b[i]
		}
	}
	ip, ok := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(ip, uint16(n)), ok
}
