package artifact

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

// build compiles a small Go program for an architecture.
func build(t testing.TB, arch string, flags ...string) string {
	t.Helper()
	dir := tempDir(t)
	write(t, filepath.Join(dir, "go.mod"), "module x\n\ngo 1.26\n", 0o644)
	write(t, filepath.Join(dir, "main.go"), "package main\n\nfunc main() {}\n", 0o644)
	cmd := exec.Command("go", append(append([]string{"build", "-o", "x"}, flags...), ".")...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOARCH="+arch, "GOOS=linux", "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return filepath.Join(dir, "x")
}

// programs are real ELF files of several linkers.
func programs(t *testing.T) map[string][]byte {
	t.Helper()
	all := map[string][]byte{
		"test binary": contents(t, self(t)),
		"true":        contents(t, "/bin/true"),
		"stripped go": contents(t, build(t, runtime.GOARCH, "-ldflags=-s -w")),
	}
	for _, path := range []string{"/bin/busybox", "/bin/sh", "/usr/bin/tar"} {
		if body, err := os.ReadFile(path); err == nil {
			all[path] = body
		}
	}
	return all
}

// lengths are where a file of n bytes is cut: everywhere when it is small, else at both ends and in between.
func lengths(n int) []int {
	const dense = 64 << 10
	var all []int
	for at := 1; at < n; at++ {
		if n > 2*dense && at > 4096 && at < n-4096 {
			at += 4099
		}
		if at < n {
			all = append(all, at)
		}
	}
	return all
}

// TestCutAnywhere takes real programs and refuses every beginning of them.
func TestCutAnywhere(t *testing.T) {
	for name, body := range programs(t) {
		if err := extent(bytes.NewReader(body), int64(len(body))); err != nil {
			t.Errorf("%s: whole, yet %v", name, err)
		}
		for _, n := range lengths(len(body)) {
			if err := extent(bytes.NewReader(body[:n]), int64(n)); !isShort(err) {
				t.Fatalf("%s: cut at %d of %d: %v", name, n, len(body), err)
			}
		}
	}
}

// TestCutFile does the same with files on disk.
func TestCutFile(t *testing.T) {
	body := contents(t, "/bin/true")
	path := write(t, filepath.Join(tempDir(t), "server"), string(body), 0o755)
	a, err := Open(path, "", "")
	must(t, err)
	must(t, a.Close())
	for n := len(body) - 1; n > 0; n -= 1 + n/100 {
		must(t, os.Truncate(path, int64(n)))
		e := refused(t, path, "", "")
		if e.Code != 126 || !errors.Is(e, syscall.ENOEXEC) || !strings.Contains(e.Error(), "cut short") {
			t.Fatalf("cut at %d: %v", n, e)
		}
		if Whole(path) == nil {
			t.Fatalf("cut at %d: whole", n)
		}
	}
}

// TestWithoutSections has only segments to go by.
func TestWithoutSections(t *testing.T) {
	body := contents(t, "/bin/true")
	copy(body[40:48], make([]byte, 8)) // e_shoff
	copy(body[60:64], make([]byte, 4)) // e_shnum, e_shstrndx
	h, err := parseHeader(body[:headSize], int64(len(body)))
	must(t, err)
	end := uint64(0)
	must(t, eachEntry(bytes.NewReader(body), h.segments, segment64, func(entry []byte) error {
		if kind, where := h.segment(entry); kind == segLoad {
			end = max(end, where.off+where.size)
		}
		return nil
	}))
	must(t, extent(bytes.NewReader(body[:end]), int64(end)))
	for n := range int(end) {
		if n > 0 && !isShort(extent(bytes.NewReader(body[:n]), int64(n))) {
			t.Fatalf("cut at %d of %d is accepted", n, end)
		}
	}
}

// TestManySections has the number of sections where it is when there are too many for the header.
func TestManySections(t *testing.T) {
	body := contents(t, "/bin/true")
	number := binary.LittleEndian.Uint16(body[60:])
	binary.LittleEndian.PutUint16(body[60:], 0)
	first := binary.LittleEndian.Uint64(body[40:])
	binary.LittleEndian.PutUint64(body[first+32:], uint64(number))
	must(t, extent(bytes.NewReader(body), int64(len(body))))
	for n := int(first) - 100; n < len(body); n++ {
		if !isShort(extent(bytes.NewReader(body[:n]), int64(n))) {
			t.Fatalf("cut at %d of %d is accepted", n, len(body))
		}
	}
	for _, lie := range []uint64{1 << 20, 1 << 31, 1 << 40, 1<<64 - 1} {
		binary.LittleEndian.PutUint64(body[first+32:], lie)
		if extent(bytes.NewReader(body), int64(len(body))) == nil {
			t.Errorf("%d sections are accepted", lie)
		}
	}
}

// TestMachines builds for every architecture and asks each kernel.
func TestMachines(t *testing.T) {
	runs := map[string]string{ // kernel: programs
		"amd64": "amd64 386", "arm64": "arm64 arm", "386": "386 amd64", "riscv64": "riscv64",
	}
	for _, arch := range []string{"amd64", "arm64", "386", "riscv64"} {
		body := contents(t, build(t, arch))
		h, err := parseHeader(body[:headSize], int64(len(body)))
		must(t, err)
		must(t, extent(bytes.NewReader(body), int64(len(body))))
		for kernel, good := range runs {
			err := h.foreign(kernel)
			if want := strings.Contains(" "+good+" ", " "+arch+" "); (err == nil) != want {
				t.Errorf("%s on %s: %v", arch, kernel, err)
			}
			if err != nil && !strings.Contains(err.Error(), arch+" binary on") {
				t.Errorf("%s on %s: %v", arch, kernel, err)
			}
		}
		must(t, h.foreign("some day's architecture"))
	}
}

func TestForeignBinary(t *testing.T) {
	arch, other := "arm64", "an arm64 binary"
	if runtime.GOARCH == "arm64" {
		arch, other = "amd64", "an amd64 binary"
	}
	e := refused(t, build(t, arch), "", "")
	if e.Code != 126 || !errors.Is(e, syscall.ENOEXEC) || !strings.Contains(e.Error(), other) {
		t.Error(e)
	}
}

func TestByteOrder(t *testing.T) {
	h := &header{order: binary.BigEndian, wide: true, machine: 62}
	if err := h.foreign("amd64"); err == nil || !strings.Contains(err.Error(), "byte order") {
		t.Error(err)
	}
	h = &header{order: binary.LittleEndian, machine: 183}
	if err := h.foreign("arm64"); err == nil || !strings.Contains(err.Error(), "word size") {
		t.Error(err)
	}
}

// TestInterpreter takes the dynamic loader away from a real program.
func TestInterpreter(t *testing.T) {
	body := contents(t, "/bin/true")
	at := bytes.Index(body, []byte("/ld-linux"))
	if at < 0 {
		t.Fatal("/bin/true has no interpreter of glibc")
	}
	at = bytes.LastIndexByte(body[:at], 0) + 1
	end := at + bytes.IndexByte(body[at:], 0)
	patch := func(name string) string {
		b := bytes.Clone(body)
		copy(b[at:end], append([]byte(name), make([]byte, end-at-len(name))...))
		return write(t, filepath.Join(tempDir(t), "server"), string(b), 0o755)
	}
	if e := refused(t, patch("/lib/ld-musl.so"), "", ""); e.Code != 127 || !errors.Is(e, syscall.ENOENT) ||
		!strings.Contains(e.Error(), `"/lib/ld-musl.so" does not exist; it was linked for musl`) {
		t.Error(e)
	}
	if e := refused(t, patch("/no/ld.so"), "", ""); !strings.Contains(e.Error(), "link it statically") {
		t.Error(e)
	}
	if e := refused(t, patch("/tmp"), "", ""); e.Code != 126 || !errors.Is(e, syscall.EACCES) {
		t.Error(e)
	}
}

// TestKinds are ELF files that are no programs.
func TestKinds(t *testing.T) {
	patch := func(off int, v uint16) []byte {
		b := bytes.Clone(contents(t, "/bin/true"))
		binary.LittleEndian.PutUint16(b[off:], v)
		return b
	}
	cases := map[string][]byte{
		"object file": patch(16, typeRel), "core dump": patch(16, typeCore), "type 9": patch(16, 9),
		"class 7": patch(4, 0x0107), "byte order 9": patch(5, 0x0109), "program headers": patch(56, 0),
		"headers of 57": patch(54, 57), "8000 program": patch(56, 8000),
	}
	for part, body := range cases {
		i := inspector{file: bytes.NewReader(body), size: int64(len(body))}
		if _, err := i.inspect(); err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%s: %v", part, err)
		}
	}
}

func TestSharedLibrary(t *testing.T) {
	libs, _ := filepath.Glob("/lib/*/libm.so.6")
	if len(libs) == 0 {
		t.Fatal("no libm here")
	}
	body := string(contents(t, libs[0]))
	e := refused(t, write(t, filepath.Join(tempDir(t), "lib.so"), body, 0o755), "", "")
	if !strings.Contains(e.Error(), "shared library") {
		t.Error(e)
	}
}

// TestEmulators reads handlers of binfmt_misc as the kernel prints them.
func TestEmulators(t *testing.T) {
	dir := tempDir(t)
	arm := "7f454c460201010000000000000000000200b700"
	mask := "ffffffffffffff00fffffffffffffffffeffffff"
	handler := func(state string) string {
		return fmt.Sprintf("%s\ninterpreter /usr/bin/qemu-aarch64\nflags: OCF\noffset 0\nmagic %s\nmask %s\n", state, arm, mask)
	}
	head, err := hex.DecodeString("7f454c460201010300000000000000000300b700")
	must(t, err)
	if emulated(dir, head) || emulated(dir+"/none", head) {
		t.Error("taken by nobody")
	}
	write(t, filepath.Join(dir, "status"), "enabled\n", 0o644)
	write(t, filepath.Join(dir, "qemu-aarch64"), handler("enabled"), 0o644)
	if !emulated(dir, head) {
		t.Error("not taken")
	}
	if emulated(dir, []byte("\x7fELF\x01")) || emulated(dir, append([]byte("x"), head...)) {
		t.Error("something else is taken")
	}
	write(t, filepath.Join(dir, "qemu-aarch64"), handler("disabled"), 0o644)
	if emulated(dir, head) {
		t.Error("taken by a disabled handler")
	}
	write(t, filepath.Join(dir, "qemu-aarch64"), handler("enabled"), 0o644)
	write(t, filepath.Join(dir, "status"), "disabled\n", 0o644)
	if emulated(dir, head) {
		t.Error("taken though all are disabled")
	}
	write(t, filepath.Join(dir, "status"), "enabled\n", 0o644)
	for _, text := range []string{"", "enabled", "enabled\noffset -1\nmagic 7f", "enabled\nextension .exe\n", "enabled\nmagic zz\n"} {
		if handlerTakes(text, head) {
			t.Errorf("%q takes", text)
		}
	}
	i := inspector{file: bytes.NewReader(head), size: int64(len(head)), misc: dir}
	if _, err := i.inspect(); !isShort(err) {
		t.Errorf("emulated but short: %v", err)
	}
}

// FuzzCheck feeds any bytes to all that looks into files: no panic, bounded reading, and an error wherever something
// named by the headers lies outside.
func FuzzCheck(f *testing.F) {
	f.Add(contents(f, "/bin/true")[:1024])
	f.Add([]byte("#!/bin/sh\r\n"))
	f.Add([]byte("\x7fELF\x02\x01\x01"))
	f.Fuzz(func(t *testing.T, body []byte) {
		r := &reads{Reader: bytes.NewReader(body)}
		i := inspector{file: r, size: int64(len(body)), dir: "/", misc: "/nonexistent"}
		_, err := i.inspect()
		if err != nil && (err.Error() == "" || strings.Contains(err.Error(), "\n")) {
			t.Errorf("not a sentence: %q", err)
		}
		if extent(bytes.NewReader(body), int64(len(body))) != nil && err == nil {
			t.Error("accepted, though not whole")
		}
		if r.bytes > len(body)*4+8<<20 {
			t.Errorf("%d bytes read of %d", r.bytes, len(body))
		}
	})
}
