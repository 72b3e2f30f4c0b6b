package graceful

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"testing"
)

// frame is one of HTTP/2.
type frame struct {
	kind, flags byte
	stream      uint32
	payload     []byte
}

func (f frame) bytes() []byte {
	b := []byte{byte(len(f.payload) >> 16), byte(len(f.payload) >> 8), byte(len(f.payload)), f.kind, f.flags}
	return append(binary.BigEndian.AppendUint32(b, f.stream), f.payload...)
}

// readFrame reads by the letter of RFC 9113, section 4.1, and shares nothing with what it checks.
func readFrame(r io.Reader) (f frame, err error) {
	var head [9]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return f, err
	}
	f = frame{head[3], head[4], binary.BigEndian.Uint32(head[5:]), make([]byte, uint(head[0])<<16|uint(head[1])<<8|uint(head[2]))}
	_, err = io.ReadFull(r, f.payload)
	return f, err
}

const (
	kindData, kindHeaders, kindSettings, kindPing, kindGoAway, kindContinue = 0, 1, 4, 6, 7, 9

	endStream, endHeaders = 0x1, 0x4
)

// story is what a server may write: SETTINGS, an empty frame, a header block in three frames, an answer, a long one.
func story() []frame {
	return []frame{
		{kindSettings, 0, 0, make([]byte, 12)},
		{kindSettings, 1, 0, nil},
		{kindHeaders, 0, 1, []byte("one")},
		{kindContinue, 0, 1, []byte("two")},
		{kindContinue, endHeaders, 1, nil},
		{kindData, endStream, 1, bytes.Repeat([]byte{kindGoAway}, 70)},
		{kindHeaders, endHeaders, 3, []byte("x")},
	}
}

// pipe is a connection that keeps what is written, and may write less than it is asked to.
type pipe struct {
	net.Conn
	out  bytes.Buffer
	most int // bytes in one write; 0: all
}

var errShort = errors.New("short")

func (p *pipe) Write(b []byte) (int, error) {
	if p.most > 0 && len(b) > p.most {
		n, _ := p.out.Write(b[:p.most])
		return n, errShort
	}
	return p.out.Write(b)
}

// told writes all in pieces of size bytes, announces before byte at, and returns the frames that came out. A short write is
// repeated, as net/http does it after a deadline.
func told(t *testing.T, all []byte, size, at, most int) []frame {
	t.Helper()
	p := &pipe{most: most}
	c := &h2Conn{Conn: p}
	for pos := 0; pos < len(all); {
		n := min(size, len(all)-pos)
		if pos < at {
			n = min(n, at-pos)
		} else {
			c.announce()
		}
		done, err := c.Write(all[pos : pos+n])
		if err == nil && done != n || err != nil && !errors.Is(err, errShort) {
			t.Fatalf("wrote %d of %d, %v", done, n, err)
		}
		pos += done
	}
	for c.announce(); c.warn != nil && c.frames.between(); {
		c.announceAgain()
	}
	return split(t, &p.out)
}

// announceAgain is a next write without anything of its own.
func (c *h2Conn) announceAgain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	_ = c.flush()
}

func split(t *testing.T, r io.Reader) (list []frame) {
	t.Helper()
	for {
		f, err := readFrame(r)
		if err == io.EOF {
			return list
		}
		if err != nil {
			t.Fatalf("half a frame after %d: %v", len(list), err)
		}
		list = append(list, f)
	}
}

func isWarning(f frame) bool { return bytes.Equal(f.bytes(), warning) }

// checkTold expects the frames of want and one warning, which is not the first and not in a header block.
func checkTold(t *testing.T, got, want []frame) {
	t.Helper()
	i := slices.IndexFunc(got, isWarning)
	if i < 1 {
		t.Fatalf("the warning is number %d", i)
	}
	if k := got[i-1].kind; (k == kindHeaders || k == kindContinue) && got[i-1].flags&endHeaders == 0 {
		t.Fatal("the warning is in a header block")
	}
	if rest := slices.Delete(got, i, i+1); !slices.EqualFunc(rest, want, func(a, b frame) bool { return bytes.Equal(a.bytes(), b.bytes()) }) {
		t.Fatalf("got %v", rest)
	}
}

func TestWarningComesBetweenFrames(t *testing.T) {
	want := story()
	var all []byte
	for _, f := range want {
		all = append(all, f.bytes()...)
	}
	for at := range len(all) + 1 {
		for _, size := range []int{1, 5, 9, 30, len(all)} {
			for _, most := range []int{0, 1, 4, 16} {
				checkTold(t, told(t, all, size, at, most), want)
			}
		}
	}
}

// A server that has named a last stream must not name a higher one.
func TestNoWarningAfterTheLastGoAway(t *testing.T) {
	list := []frame{{kindSettings, 0, 0, nil}, {kindGoAway, 0, 0, make([]byte, 8)}}
	p := &pipe{}
	c := &h2Conn{Conn: p}
	for _, f := range list {
		_, _ = c.Write(f.bytes())
	}
	c.announce()
	if got := split(t, &p.out); len(got) != 2 || c.toldFor(0) {
		t.Errorf("got %v, told %v", got, c.toldFor(0))
	}
}

// FuzzFrames writes any frames in any pieces; and any bytes, whose frames may make no sense, but must come out as they are.
func FuzzFrames(f *testing.F) {
	var all []byte
	for _, fr := range story() {
		all = append(all, fr.bytes()...)
	}
	f.Add(all, uint8(7), uint16(20), uint8(3))
	f.Add([]byte{0, 0, 0}, uint8(1), uint16(0), uint8(0))
	f.Fuzz(func(t *testing.T, data []byte, size uint8, at uint16, most uint8) {
		if len(data) > 1<<12 {
			return
		}
		frames := []frame{{kind: kindSettings}}
		for rest := data; len(rest) > 2; {
			n := min(int(rest[0]), len(rest)-3)
			fr := frame{rest[1] % 7, rest[2], 1, rest[3 : 3+n]} // no GOAWAY of its own
			frames, rest = append(frames, fr), rest[3+n:]
		}
		frames = append(frames, frame{kindContinue, endHeaders, 1, nil}) // ends what is open
		var well []byte
		for _, fr := range frames {
			well = append(well, fr.bytes()...)
		}
		checkTold(t, told(t, well, int(size)+1, int(at), int(most)), frames)

		p := &pipe{}
		c := &h2Conn{Conn: p}
		for pos := 0; pos < len(data); pos += int(size) + 1 {
			if pos >= int(at) {
				c.announce()
			}
			_, _ = c.Write(data[pos:min(len(data), pos+int(size)+1)])
		}
		out := p.out.Bytes()
		if !bytes.Equal(out, data) {
			if i := bytes.Index(out, warning); i < 0 || len(out) != len(data)+len(warning) {
				t.Fatalf("%x became %x", data, out)
			}
		}
	})
}
