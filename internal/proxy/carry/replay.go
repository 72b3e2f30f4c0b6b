package carry

import (
	"errors"
	"io"
	"net/http"
	"sync"
)

// keepBody is how much of a request's body is kept until it is answered: enough for what lies in buffers when it is found that nothing could be
// sent.
const keepBody = 64 << 10

var errBodyGone = errors.New("the body of the request is too long to be sent again")

// replay is the body of a request that may be sent again from its beginning, as long as not too much of it has been read. One reader
// at a time.
type replay struct {
	src io.ReadCloser

	mu   sync.Mutex
	kept []byte // what was read of src from the beginning
	lost bool   // more than that was read
	end  error  // of src: it may be closed by the server as soon as there is an answer, and is not read again
}

// replayable puts a replay in the place of a request's body.
func replayable(r *http.Request) *replay {
	if r.Body == nil || r.Body == http.NoBody {
		return nil
	}
	p := &replay{src: r.Body}
	r.Body = &playing{p: p}
	r.GetBody = p.again
	return p
}

// atEnd tells whether all of the body was read, and nobody will read more.
func (p *replay) atEnd() bool {
	if p == nil {
		return true
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return errors.Is(p.end, io.EOF)
}

// again is the body from its beginning.
func (p *replay) again() (io.ReadCloser, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.lost {
		return nil, errBodyGone
	}
	return &playing{p: p}, nil
}

// playing is one way through the body.
type playing struct {
	p  *replay
	at int // in kept
}

func (r *playing) Read(b []byte) (int, error) {
	p := r.p
	p.mu.Lock()
	if r.at < len(p.kept) {
		n := copy(b, p.kept[r.at:])
		r.at += n
		p.mu.Unlock()
		return n, nil
	}
	if p.end != nil {
		p.mu.Unlock()
		return 0, p.end
	}
	p.mu.Unlock()
	n, err := p.src.Read(b) // without the lock: it may take long
	p.mu.Lock()
	defer p.mu.Unlock()
	p.end = err
	if p.lost = p.lost || len(p.kept)+n > keepBody; p.lost {
		p.kept = nil
		r.at = 0
	} else {
		p.kept = append(p.kept, b[:n]...)
		r.at = len(p.kept)
	}
	return n, err
}

// Close leaves the body open for another way through it. The server closes it when its request is over.
func (r *playing) Close() error { return nil }
