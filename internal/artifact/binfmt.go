package artifact

import (
	"bytes"
	"encoding/hex"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// binfmtMisc is where the kernel's table of emulators is mounted. Few containers see it; then no emulator is known.
const binfmtMisc = "/proc/sys/fs/binfmt_misc"

// Bounds of what is read there: more handlers, or longer ones, than any machine has.
const (
	maxHandlers    = 256
	maxHandlerFile = 4096
)

// emulated tells whether an enabled handler of binfmt_misc mounted at dir takes files that begin like head.
func emulated(dir string, head []byte) bool {
	d, err := os.Open(dir)
	if err != nil {
		return false
	}
	defer d.Close()
	names, _ := d.Readdirnames(maxHandlers)
	for _, name := range names {
		if name == "register" || name == "status" {
			continue
		}
		if text, err := readSmall(filepath.Join(dir, name)); err == nil && handlerTakes(text, head) {
			return readStatus(dir)
		}
	}
	return false
}

// readStatus tells whether binfmt_misc as a whole is on.
func readStatus(dir string) bool {
	text, err := readSmall(filepath.Join(dir, "status"))
	return err == nil && strings.TrimSpace(text) == "enabled"
}

func readSmall(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxHandlerFile))
	return string(text), err
}

// handlerTakes reads the description of one handler, as the kernel prints it, and applies it. Handlers by file name
// extension have no magic and take nothing here.
func handlerTakes(text string, head []byte) bool {
	lines := strings.Split(text, "\n")
	if lines[0] != "enabled" {
		return false
	}
	var magic, mask []byte
	offset := 0
	for _, line := range lines[1:] {
		key, value, _ := strings.Cut(line, " ")
		switch key {
		case "offset":
			offset, _ = strconv.Atoi(value)
		case "magic":
			magic, _ = hex.DecodeString(value)
		case "mask":
			mask, _ = hex.DecodeString(value)
		}
	}
	if len(magic) == 0 || offset < 0 || offset > len(head) || len(head)-offset < len(magic) {
		return false
	}
	return bytes.Equal(masked(head[offset:offset+len(magic)], mask), masked(magic, mask))
}

// masked is b with only the bits of mask, or b itself when there is none of its length.
func masked(b, mask []byte) []byte {
	if len(mask) != len(b) {
		return b
	}
	out := make([]byte, len(b))
	for i := range b {
		out[i] = b[i] & mask[i]
	}
	return out
}
