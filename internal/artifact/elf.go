package artifact

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"syscall"
)

// Numbers of the ELF specification, and the kernel's own limits.
const (
	class32, class64     = 1, 2
	dataLittle, dataBig  = 1, 2
	typeRel, typeExec    = 1, 2
	typeDyn, typeCore    = 3, 4
	segLoad, segDynamic  = 1, 2
	segInterp            = 3
	sectNull, sectNoBits = 0, 8
	maxSegmentTable      = 64 << 10 // the kernel refuses larger ones
	maxInterp            = 4096     // PATH_MAX
	maxSections          = 64 << 10 // what an honest table holds; the rest of a larger one is not looked at
	tableChunk           = 64 << 10
	header32, header64   = 52, 64
	segment32, segment64 = 32, 56
	section32, section64 = 40, 64
	lastStandardSegment  = 7 // PT_TLS
	shnumInFirst         = 0 // e_shnum when the real number is in the first section
)

var elfMagic = []byte("\x7fELF")

// looksELF is true for the beginning of an ELF file, however few bytes of it are there.
func looksELF(head []byte) bool {
	n := min(len(head), len(elfMagic))
	return n > 0 && bytes.Equal(head[:n], elfMagic[:n])
}

// span is a part of a file.
type span struct{ off, size uint64 }

// end is the first byte behind the span; ok is false when there is no such number.
func (s span) end() (end uint64, ok bool) {
	end = s.off + s.size
	return end, end >= s.off && end <= 1<<63-1
}

// header is what is needed of an ELF header, and of its tables once extent has read them.
type header struct {
	order           binary.ByteOrder
	wide            bool // 64 bit
	kindOf, machine uint16
	entry           uint64
	segments        span
	nsegments       int
	segmentSize     int
	sections        span
	nsections       int
	sectionSize     int
	interp          span
	dynamic         span
	loads           []load
}

// extent reads the headers of an ELF file and says whether all that they name lies within its size bytes. Files of
// other formats pass.
func extent(r io.ReaderAt, size int64) error {
	head, err := readHead(r, size)
	if err != nil || !looksELF(head) {
		return err
	}
	h, err := parseHeader(head, size)
	if err != nil {
		return err
	}
	return h.extent(r, size)
}

// parseHeader reads the ELF header at the beginning of a file.
func parseHeader(head []byte, size int64) (*header, error) {
	if len(head) < header32 {
		return nil, short(size, header32)
	}
	h := &header{wide: head[4] == class64}
	if head[4] != class32 && head[4] != class64 {
		return nil, noExec("its ELF header is damaged: class %d", head[4])
	}
	switch head[5] {
	case dataLittle:
		h.order = binary.LittleEndian
	case dataBig:
		h.order = binary.BigEndian
	default:
		return nil, noExec("its ELF header is damaged: byte order %d", head[5])
	}
	if h.wide && len(head) < header64 {
		return nil, short(size, header64)
	}
	h.kindOf, h.machine = h.order.Uint16(head[16:]), h.order.Uint16(head[18:])
	h.tables(head)
	return h, nil
}

// tables reads where the two tables of the file are.
func (h *header) tables(head []byte) {
	counts := head[42:] // e_phentsize and what follows
	if h.wide {
		h.entry = h.order.Uint64(head[24:])
		h.segments.off, h.sections.off = h.order.Uint64(head[32:]), h.order.Uint64(head[40:])
		counts = head[54:]
	} else {
		h.entry = uint64(h.order.Uint32(head[24:]))
		h.segments.off, h.sections.off = uint64(h.order.Uint32(head[28:])), uint64(h.order.Uint32(head[32:]))
	}
	number := func(i int) int { return int(h.order.Uint16(counts[2*i:])) }
	h.segmentSize, h.nsegments = number(0), number(1)
	h.sectionSize, h.nsections = number(2), number(3)
	h.segments.size = uint64(h.segmentSize) * uint64(h.nsegments)
	h.sections.size = uint64(h.sectionSize) * uint64(h.nsections)
}

// kind refuses ELF files that are no programs.
func (h *header) kind() error {
	switch h.kindOf {
	case typeExec, typeDyn:
		return nil
	case typeRel:
		return noExec("it is an object file, not a program; link it")
	case typeCore:
		return noExec("it is a core dump, not a program")
	}
	return noExec("its ELF header is damaged: type %d", h.kindOf)
}

// dynamicOnly is true for a shared library: position independent, with no entry point.
func (h *header) dynamicOnly() bool { return h.kindOf == typeDyn && h.entry == 0 }

// extent reads both tables and checks that everything they name lies within the file.
func (h *header) extent(r io.ReaderAt, size int64) error {
	if err := h.readSegments(r, size); err != nil {
		return err
	}
	if h.sections.off == 0 {
		return nil // a file stripped of its section table
	}
	return h.readSections(r, size)
}

func (h *header) readSegments(r io.ReaderAt, size int64) error {
	want := segment32
	if h.wide {
		want = segment64
	}
	if h.nsegments == 0 || h.segmentSize != want || h.segments.size > maxSegmentTable {
		return noExec("its ELF header is damaged: %d program headers of %d bytes", h.nsegments, h.segmentSize)
	}
	if err := within(h.segments, size); err != nil {
		return err
	}
	return eachEntry(r, h.segments, want, func(entry []byte) error {
		kind, where := h.segment(entry)
		h.note(kind, where, entry)
		if kind == 0 || kind > lastStandardSegment || where.size == 0 {
			return nil
		}
		return within(where, size)
	})
}

// note keeps the segments that are looked into later.
func (h *header) note(kind uint32, where span, entry []byte) {
	switch {
	case kind == segInterp && h.interp.size == 0:
		h.interp = where
	case kind == segDynamic && h.dynamic.size == 0:
		h.dynamic = where
	case kind == segLoad && len(h.loads) < maxLoads:
		h.loads = append(h.loads, load{h.address(entry), where})
	}
}

// address reads where a segment is in memory.
func (h *header) address(entry []byte) uint64 {
	if h.wide {
		return h.order.Uint64(entry[16:])
	}
	return uint64(h.order.Uint32(entry[8:]))
}

// segment reads one program header: its type and where its bytes are in the file.
func (h *header) segment(entry []byte) (kind uint32, where span) {
	kind = h.order.Uint32(entry)
	if h.wide {
		return kind, span{h.order.Uint64(entry[8:]), h.order.Uint64(entry[32:])}
	}
	return kind, span{uint64(h.order.Uint32(entry[4:])), uint64(h.order.Uint32(entry[16:]))}
}

func (h *header) readSections(r io.ReaderAt, size int64) error {
	want := section32
	if h.wide {
		want = section64
	}
	if h.sectionSize != want { // nobody who runs the program reads this table: only its length can be judged
		return within(h.sections, size)
	}
	first := span{h.sections.off, uint64(want)}
	if err := within(first, size); err != nil {
		return err
	}
	if h.nsections == shnumInFirst {
		if err := h.countSections(r, first); err != nil {
			return err
		}
	}
	if err := within(h.sections, size); err != nil {
		return err
	}
	h.sections.size = min(h.sections.size, maxSections*uint64(want))
	return eachEntry(r, h.sections, want, func(entry []byte) error {
		kind, where := h.section(entry)
		if kind == sectNull || kind == sectNoBits {
			return nil
		}
		return within(where, size)
	})
}

// countSections reads the number of sections from the first one, where it is when it does not fit the header.
func (h *header) countSections(r io.ReaderAt, first span) error {
	return eachEntry(r, first, int(first.size), func(entry []byte) error {
		_, where := h.section(entry)
		if where.size > 1<<32 {
			return noExec("its ELF header is damaged: %d section headers", where.size)
		}
		h.sections.size = where.size * first.size
		return nil
	})
}

// section reads one section header: its type and where its bytes are in the file.
func (h *header) section(entry []byte) (kind uint32, where span) {
	kind = h.order.Uint32(entry[4:])
	if h.wide {
		return kind, span{h.order.Uint64(entry[24:]), h.order.Uint64(entry[32:])}
	}
	return kind, span{uint64(h.order.Uint32(entry[16:])), uint64(h.order.Uint32(entry[20:]))}
}

// interpName reads the path of the dynamic loader.
func (h *header) interpName(r io.ReaderAt) (string, error) {
	if h.interp.size < 2 || h.interp.size > maxInterp {
		return "", noExec("its ELF header is damaged: an interpreter name of %d bytes", h.interp.size)
	}
	name := make([]byte, h.interp.size)
	if err := readFull(r, name, int64(h.interp.off)); err != nil {
		return "", err
	}
	if name[len(name)-1] != 0 {
		return "", noExec("its ELF header is damaged: the interpreter name has no end")
	}
	name, _, _ = bytes.Cut(name, []byte{0})
	return string(name), nil
}

// within checks that a part lies inside a file of size bytes.
func within(part span, size int64) error {
	end, ok := part.end()
	if !ok {
		return noExec("its ELF header is damaged: %d bytes at offset %d", part.size, part.off)
	}
	if end > uint64(size) {
		return short(size, end)
	}
	return nil
}

// eachEntry reads a table of entries of width bytes in bounded pieces. The table must lie within the file.
func eachEntry(r io.ReaderAt, table span, width int, visit func(entry []byte) error) error {
	piece := uint64(tableChunk / width * width)
	buf := make([]byte, min(piece, table.size))
	for table.size >= uint64(width) {
		buf = buf[:min(uint64(len(buf)), table.size)]
		if err := readFull(r, buf, int64(table.off)); err != nil {
			return err
		}
		for entry := buf; len(entry) >= width; entry = entry[width:] {
			if err := visit(entry[:width]); err != nil {
				return err
			}
		}
		table.off += uint64(len(buf))
		table.size -= uint64(len(buf))
	}
	return nil
}

// errnoOf is the error number behind a sentence.
func errnoOf(err error) syscall.Errno {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return syscall.ENOEXEC
}
