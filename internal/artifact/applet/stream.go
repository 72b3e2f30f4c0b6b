package applet

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
)

// stream is an archive on its way in. It remembers whether its end was met.
type stream struct {
	r     io.Reader
	raw   *bufio.Reader
	ended bool
}

// streamError is an error of the stream, as opposed to one of the file that is being written.
type streamError struct{ err error }

func (e *streamError) Error() string { return e.err.Error() }
func (e *streamError) Unwrap() error { return e.err }

// otherMagic are the first bytes of what people also compress with.
var otherMagic = map[string]string{"BZh": "bzip2", "\xfd7zXZ": "xz", "\x28\xb5\x2f\xfd": "zstd", "PK\x03\x04": "zip"}

// openStream looks at the first bytes: gzip is undone whether it was announced or not.
func openStream(in io.Reader, announced bool) (*stream, error) {
	raw := bufio.NewReaderSize(in, 64<<10)
	s := &stream{r: raw, raw: raw}
	head, err := raw.Peek(2)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if !announced && !bytes.Equal(head, []byte{0x1f, 0x8b}) {
		return s, nil
	}
	if s.r, err = gzip.NewReader(raw); err != nil {
		return nil, fmt.Errorf("the stream is not what gzip writes, although -z was given: %w", err)
	}
	return s, nil
}

// Read never returns bytes together with an end, so that ended means: somebody wanted more than there was.
func (s *stream) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	switch {
	case n > 0:
		return n, nil
	case err == io.EOF:
		s.ended = true
		return 0, io.EOF
	case err != nil:
		return 0, &streamError{err}
	}
	return 0, nil
}

// looksLike names the compression that a stream begins with, if it is one that we do not undo.
func (s *stream) looksLike() string {
	head, _ := s.raw.Peek(6)
	for magic, name := range otherMagic {
		if bytes.HasPrefix(head, []byte(magic)) {
			return name
		}
	}
	return ""
}

// maxPadding is how much may follow the end mark: tar pads to a record, and some tools to more.
const maxPadding = 64 << 20

// drain reads to the end of the input: whoever writes waits for that, and the checksum of gzip stands there.
func (s *stream) drain() error {
	n, err := io.Copy(io.Discard, io.LimitReader(struct{ io.Reader }{s}, maxPadding))
	if err == nil && n == maxPadding {
		err = errors.New("more than 64 MiB follow the end of the archive")
	}
	return err
}
