package artifact

import (
	"bytes"
	"io"
)

// Numbers of the ELF specification, and bounds of what is read of a file that may be hostile.
const (
	dynNull, dynStrTab   = 0, 5
	dynStrSize           = 10
	dynRPath, dynRunPath = 15, 29
	maxDynamic           = 64 << 10 // honest ones have some hundred bytes
	maxRunPath           = 4096     // of one list of directories
	maxLoads             = 1024
)

// load is a part of the file as it lies in memory.
type load struct {
	addr uint64
	span
}

// origin is the first list of library directories that depends on where the file lies ($ORIGIN), or "". What cannot be
// read is taken for having none: the dynamic loader will say what it misses.
func (f format) origin(r io.ReaderAt) string {
	if f.elf == nil {
		return ""
	}
	return f.elf.origin(r)
}

// dynamics are the entries of PT_DYNAMIC that matter here.
type dynamics struct {
	strings  uint64 // address of the string table
	size     uint64 // its length, 0 if unknown
	runPaths []uint64
}

func (h *header) origin(r io.ReaderAt) string {
	if h.dynamic.size == 0 {
		return ""
	}
	d := h.readDynamics(r)
	for _, at := range d.runPaths {
		if d.size != 0 && at >= d.size || d.strings == 0 {
			continue
		}
		list := h.stringAt(r, d.strings, at)
		if bytes.Contains(list, []byte("$ORIGIN")) || bytes.Contains(list, []byte("${ORIGIN}")) {
			return string(list)
		}
	}
	return ""
}

// readDynamics reads the dynamic section up to its end mark.
func (h *header) readDynamics(r io.ReaderAt) (d dynamics) {
	table, width := h.dynamic, 8
	if h.wide {
		width = 16
	}
	table.size = min(table.size, maxDynamic)
	over := false
	_ = eachEntry(r, table, width, func(entry []byte) error {
		tag, value := h.pair(entry)
		over = over || tag == dynNull
		if !over {
			d.add(tag, value)
		}
		return nil
	})
	return d
}

func (d *dynamics) add(tag, value uint64) {
	switch tag {
	case dynStrTab:
		d.strings = value
	case dynStrSize:
		d.size = value
	case dynRPath, dynRunPath:
		if len(d.runPaths) < 4 { // the loader heeds one of each
			d.runPaths = append(d.runPaths, value)
		}
	}
}

// pair reads one entry: a tag, and a number or address.
func (h *header) pair(entry []byte) (tag, value uint64) {
	if h.wide {
		return h.order.Uint64(entry), h.order.Uint64(entry[8:])
	}
	return uint64(h.order.Uint32(entry)), uint64(h.order.Uint32(entry[4:]))
}

// stringAt reads a string of the string table at an address, as far as the file has it.
func (h *header) stringAt(r io.ReaderAt, table, at uint64) []byte {
	addr := table + at
	if addr < table {
		return nil
	}
	for _, l := range h.loads {
		if addr < l.addr || addr-l.addr >= l.size {
			continue
		}
		inside := addr - l.addr
		b := make([]byte, min(maxRunPath, l.size-inside))
		if readFull(r, b, int64(l.off+inside)) != nil {
			return nil
		}
		b, _, _ = bytes.Cut(b, []byte{0})
		return b
	}
	return nil
}
