package graceful

import "encoding/binary"

// What RFC 9113 says of a frame, as far as it matters here.
const (
	frameHeader      = 9
	frameHeaders     = 0x1
	framePushPromise = 0x5
	frameGoAway      = 0x7
	frameContinue    = 0x9
	flagEndHeaders   = 0x4
)

// frames follows the HTTP/2 frames in the bytes that a server writes, to know where another one may be put in. A copy is a
// look ahead.
type frames struct {
	head  [frameHeader]byte
	have  int  // of head
	rest  int  // bytes of the payload to come
	begun bool // the first frame, which must be SETTINGS, is written
	block bool // only CONTINUATION may follow
	left  bool // the server itself has said GOAWAY
}

// between tells that a frame may be put in here.
func (f *frames) between() bool { return f.begun && f.have == 0 && !f.block }

// step goes to the end of the frame, or to the end of p if that comes first, and returns how far that is. It is at least one
// byte if p has one.
func (f *frames) step(p []byte) int {
	n := copy(f.head[f.have:], p)
	f.have += n
	if f.have < frameHeader {
		return n
	}
	if n > 0 { // the header is complete only now
		f.rest = int(f.head[0])<<16 | int(binary.BigEndian.Uint16(f.head[1:]))
	}
	payload := min(f.rest, len(p)-n)
	f.rest -= payload
	if f.rest == 0 {
		f.end()
	}
	return n + payload
}

func (f *frames) end() {
	f.have, f.begun = 0, true
	switch f.head[3] {
	case frameHeaders, framePushPromise, frameContinue:
		f.block = f.head[4]&flagEndHeaders == 0
	case frameGoAway:
		f.left = true
	}
}

// gap returns the length of the beginning of p after which a frame may be put in, or len(p) if there is no such place.
func (f frames) gap(p []byte) int {
	n := 0
	for n < len(p) && !f.between() {
		n += f.step(p[n:])
	}
	return n
}

// pass goes over all of p.
func (f *frames) pass(p []byte) {
	for len(p) > 0 {
		p = p[f.step(p):]
	}
}
