package artifact

import (
	"bytes"
	"io"
)

const (
	// executableName is in the table of functions of every Go program that calls os.Executable, stripped or not, and in no other.
	executableName = "os.Executable"
	// itselfChunk is read at once; neighbours overlap by the length of the name.
	itselfChunk = 256 << 10
	// maxItself bounds the search: no function table begins behind it in any program that is copied to memory.
	maxItself = maxInMemory
)

// asksForItself tells whether a program of size bytes asks where its own file is. A Go program is known to by a name that its linker leaves out
// where nobody calls it. Of others it cannot be known: the C and Rust libraries carry the code in any case. What cannot be read is not found.
func asksForItself(r io.ReaderAt, size int64) bool {
	buf := make([]byte, itselfChunk)
	for at := int64(0); at < min(size, maxItself); at += itselfChunk - int64(len(executableName)) {
		n, err := r.ReadAt(buf, at)
		if bytes.Contains(buf[:n], []byte(executableName)) {
			return true
		}
		if err != nil {
			return false
		}
	}
	return false
}
