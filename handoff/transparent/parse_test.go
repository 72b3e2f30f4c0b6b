//go:build amd64 || arm64

package transparent

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func family(f uint16, rest ...byte) []byte {
	return append(binary.NativeEndian.AppendUint16(nil, f), rest...)
}

func TestParseSockaddr(t *testing.T) {
	in4 := append([]byte{0x1f, 0x90, 10, 0, 0, 7}, make([]byte, 8)...)
	in6 := append([]byte{0x1f, 0x90, 0, 0, 0, 0, 0xfe, 0x80}, make([]byte, 18)...)
	in6[21] = 9
	zone := func(n uint32) []byte { return append(in6[:22:22], binary.NativeEndian.AppendUint32(nil, n)...) }
	mapped := append([]byte{0x1f, 0x90, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, 1}, 5, 0, 0, 0)
	for _, c := range []struct {
		name       string
		b          []byte
		family     int
		addr, path string
	}{
		{"in", family(unix.AF_INET, in4...), unix.AF_INET, "10.0.0.7:8080", ""},
		{"in, more behind it", family(unix.AF_INET, append(in4[:14:14], 1, 2, 3)...), unix.AF_INET, "10.0.0.7:8080", ""},
		{"in, too short", family(unix.AF_INET, in4[:13]...), unix.AF_INET, "invalid AddrPort", ""},
		{"in6", family(unix.AF_INET6, zone(0)...), unix.AF_INET6, "[fe80::9]:8080", ""},
		{"in6 with a zone", family(unix.AF_INET6, zone(4)...), unix.AF_INET6, "[fe80::9%4]:8080", ""},
		{"in6 without room for a zone (RFC 2133)", family(unix.AF_INET6, in6[:22]...), unix.AF_INET6, "[fe80::9]:8080", ""},
		{"in6, too short", family(unix.AF_INET6, in6[:21]...), unix.AF_INET6, "invalid AddrPort", ""},
		{"in6, mapped: no zone", family(unix.AF_INET6, mapped...), unix.AF_INET6, "[::ffff:127.0.0.1]:8080", ""},
		{"un", family(unix.AF_UNIX, []byte("/run/s\x00rubbish")...), unix.AF_UNIX, "invalid AddrPort", "/run/s"},
		{"un without an end", family(unix.AF_UNIX, []byte("/run/s")...), unix.AF_UNIX, "invalid AddrPort", "/run/s"},
		{"un, abstract", family(unix.AF_UNIX, []byte("\x00a\x00b")...), unix.AF_UNIX, "invalid AddrPort", "@a\x00b"},
		{"un, to be named by the kernel", family(unix.AF_UNIX), unix.AF_UNIX, "invalid AddrPort", ""},
		{"netlink", family(unix.AF_NETLINK, make([]byte, 10)...), unix.AF_NETLINK, "invalid AddrPort", ""},
	} {
		family, addr, path := parseSockaddr(c.b)
		if family != c.family || addr.String() != c.addr || path != c.path {
			t.Errorf("%s: %d %v %q", c.name, family, addr, path)
		}
	}
}

// FuzzParseSockaddr: whatever a program passes is read without a fault, and an address is that of its own family only.
func FuzzParseSockaddr(f *testing.F) {
	f.Add(family(unix.AF_INET, make([]byte, 14)...))
	f.Add(family(unix.AF_INET6, make([]byte, 26)...))
	f.Add(family(unix.AF_UNIX, []byte("/s")...))
	f.Add(family(unix.AF_UNIX))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < 2 || len(b) > maxAddress {
			return
		}
		family, addr, path := parseSockaddr(b)
		if family != int(binary.NativeEndian.Uint16(b)) {
			t.Fatalf("family %d", family)
		}
		if addr.IsValid() && (family != unix.AF_INET && family != unix.AF_INET6 || addr.Addr().Is4() != (family == unix.AF_INET)) {
			t.Fatalf("family %d has address %v", family, addr)
		}
		if addr.IsValid() && addr.Port() != binary.BigEndian.Uint16(b[2:]) {
			t.Fatalf("port %d", addr.Port())
		}
		if path != "" && (family != unix.AF_UNIX || path[0] != '@' && strings.Contains(path, "\x00") || len(path) > len(b)-2) {
			t.Fatalf("family %d has path %q", family, path)
		}
	})
}

// FuzzLists writes an epoll set's lines as the kernel does and looks for one socket.
func FuzzLists(f *testing.F) {
	f.Add(uint64(0x1f2e), uint64(0x1f2e), uint64(3))
	f.Add(uint64(0x1f2), uint64(0x1f2e), uint64(3))
	f.Add(uint64(0x1f2e0), uint64(0x51f2e), uint64(0))
	f.Fuzz(func(t *testing.T, wanted, one, other uint64) {
		text := "pos:\t0\nflags:\t02\nmnt_id:\t16\nino:\t1057\n"
		for i, inode := range []uint64{one, other} {
			text += fmt.Sprintf("tfd: %8d events: %8x data: %16x  pos:0 ino:%x sdev:8\n", i+5, 0x19, inode, inode)
		}
		if got, want := lists([]byte(text), wanted), wanted == one || wanted == other; got != want {
			t.Errorf("lists(%x) = %v in\n%s", wanted, got, text)
		}
	})
}

func TestField(t *testing.T) {
	text := []byte("Name:\tx\nUmask:\t0022\nUid:\t1\t2\t3\t4\nflags:\t02004002\n")
	for name, want := range map[string]string{"Name:": "x", "Umask:": "0022", "Uid:": "1\t2\t3\t4", "flags:": "02004002", "Gid:": "", "mask:": ""} {
		if got := field(text, name); got != want {
			t.Errorf("%s %q", name, got)
		}
	}
}
