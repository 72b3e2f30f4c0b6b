package control

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// socketTable lists the unix sockets of our network namespace.
const socketTable = "/proc/net/unix"

// acceptsConnections is the flag of a listening socket in the socket table (__SO_ACCEPTCON); connections to it carry the same name.
const acceptsConnections = 0x10000

// find connects to the init of this container: pid 1, else the only other one.
func find(ctx context.Context) (*Client, error) {
	own, err := ownNamespace()
	if err != nil {
		return nil, fmt.Errorf("no init to talk to: %w", err)
	}
	first := SocketName(own.ino, 1)
	c, err := connect(ctx, first)
	if err == nil || ctx.Err() != nil {
		return c, err
	}
	others, faults := findOthers(ctx, own.ino)
	switch len(others) {
	case 0:
		faults = append([]string{fmt.Sprintf("%q: %v", first, err)}, faults...)
		return nil, fmt.Errorf("no init to talk to: %s; entrypoint must run as the ENTRYPOINT of this container, with ENTRYPOINT_CONTROL not off",
			strings.Join(faults, "; "))
	case 1:
		return others[0], nil
	}
	for _, c := range others {
		_ = c.Close()
	}
	return nil, fmt.Errorf("several inits to talk to, with the pids %s: name one by ENTRYPOINT_CONTROL=%s", joinPIDs(others), others[0].address)
}

// findOthers connects to every other init of our mount namespace. Whoever has the name but fails the check of the listener is
// a fault to report: anybody in the network namespace can take a name.
func findOthers(ctx context.Context, mntns uint64) (found []*Client, faults []string) {
	file, err := os.Open(socketTable)
	if err != nil {
		return nil, []string{fmt.Sprintf("cannot look for others: %v", err)}
	}
	defer file.Close()
	names, err := namesIn(file, mntns)
	if err != nil {
		faults = append(faults, fmt.Sprintf("cannot look for others in %q: %v", socketTable, err))
	}
	for _, name := range names {
		c, err := connect(ctx, name)
		if err != nil {
			faults = append(faults, fmt.Sprintf("%q: %v", name, err))
			continue
		}
		found = append(found, c)
	}
	return found, faults
}

// maxNames bounds the names that are tried: a stranger can make thousands.
const maxNames = 64

// namesIn picks the listening names of inits in that mount namespace from the socket table, in the order of their pids, without
// pid 1, which was tried already.
func namesIn(table io.Reader, mntns uint64) ([]string, error) {
	var pids []int
	lines := bufio.NewScanner(table)
	for lines.Scan() {
		// Num RefCount Protocol Flags Type St Inode Path
		fields := strings.Fields(lines.Text())
		if len(fields) != 8 {
			continue
		}
		flags, err := strconv.ParseUint(fields[3], 16, 32)
		ns, pid, ok := splitName(fields[7])
		if err == nil && flags&acceptsConnections != 0 && ok && ns == mntns && pid != 1 && !slices.Contains(pids, pid) {
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	var names []string
	for _, pid := range pids[:min(len(pids), maxNames)] {
		names = append(names, SocketName(mntns, pid))
	}
	err := lines.Err()
	if errors.Is(err, bufio.ErrTooLong) || errors.Is(err, unix.EINTR) {
		err = nil // a strange name of somebody else; what was found before it is good
	}
	return names, err
}
