package handoff

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"hash/maphash"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// procSeed makes keys of connections out of their addresses, where no cookie is to be had.
var procSeed = maphash.MakeSeed()

// procTCP is dumpTCP without sock_diag: it reads /proc/net/tcp or tcp6. Colour and times are unknown there.
func procTCP(family, port int, states uint32, each func(*tcpConn)) error {
	name := "/proc/thread-self/net/tcp"
	if family == unix.AF_INET6 {
		name += "6"
	}
	f, err := os.Open(name)
	if err != nil {
		return fmt.Errorf("cannot count connections: %w", err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Scan() // heading
	for lines.Scan() {
		if c, ok := parseProcTCP(lines.Text()); ok && (port == 0 || int(c.local.Port()) == port) && states>>c.state&1 == 1 {
			each(&c)
		}
	}
	return lines.Err()
}

// parseProcTCP reads one line: sl local remote st tx:rx tr:tm retrnsmt uid timeout inode …
func parseProcTCP(line string) (c tcpConn, ok bool) {
	f := strings.Fields(line)
	if len(f) < 10 {
		return c, false
	}
	local, ok1 := parseProcAddr(f[1])
	remote, ok2 := parseProcAddr(f[2])
	state, err1 := strconv.ParseUint(f[3], 16, 8)
	tx, rx, _ := strings.Cut(f[4], ":")
	wqueue, err2 := strconv.ParseUint(tx, 16, 32)
	rqueue, err3 := strconv.ParseUint(rx, 16, 32)
	inode, err4 := strconv.ParseUint(f[9], 10, 32)
	if !ok1 || !ok2 || err1 != nil || err2 != nil || err3 != nil || err4 != nil || state > 31 {
		return c, false
	}
	if state == 12 { // a half-open connection, as some kernels number it here
		state = tcpSynRecv
	}
	return tcpConn{state: uint8(state), local: local, remote: remote, inode: uint32(inode),
		key: maphash.Comparable(procSeed, remote), wqueue: uint32(wqueue), rqueue: uint32(rqueue)}, true
}

// parseProcAddr reads ADDRESS:PORT in hexadecimal; the address is 32-bit words in the machine's order.
func parseProcAddr(s string) (netip.AddrPort, bool) {
	addr, port, _ := strings.Cut(s, ":")
	raw, err := hex.DecodeString(addr)
	p, err2 := strconv.ParseUint(port, 16, 16)
	if err != nil || err2 != nil || len(raw) != 4 && len(raw) != 16 {
		return netip.AddrPort{}, false
	}
	for i := 0; i < len(raw); i += 4 {
		w := uint32(raw[i])<<24 | uint32(raw[i+1])<<16 | uint32(raw[i+2])<<8 | uint32(raw[i+3])
		native.PutUint32(raw[i:], w)
	}
	ip, ok := netip.AddrFromSlice(raw)
	return netip.AddrPortFrom(ip.Unmap(), uint16(p)), ok
}

// eachTCP is dumpTCP where the kernel has it, procTCP elsewhere.
func eachTCP(family, port int, states uint32, each func(*tcpConn)) error {
	n := 0
	err := dumpTCP(family, port, states, func(c *tcpConn) { n++; each(c) })
	if err == nil || n > 0 {
		return err
	}
	return procTCP(family, port, states, each)
}

// lookupTCP is findTCP where the kernel has it; elsewhere it searches /proc/net.
func lookupTCP(family int, local, remote netip.AddrPort) (tcpConn, error) {
	c, err := findTCP(local, remote)
	if err == nil || err == unix.ENOENT {
		return c, err
	}
	want := netip.AddrPortFrom(remote.Addr().Unmap(), remote.Port())
	found := false
	err = procTCP(family, int(local.Port()), 0xfff&^(1<<tcpListen), func(x *tcpConn) {
		if x.remote == want {
			c, found = *x, true
		}
	})
	if err == nil && !found {
		err = unix.ENOENT
	}
	return c, err
}
