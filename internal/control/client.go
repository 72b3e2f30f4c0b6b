package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// maxAnswer bounds one line of an answer, so that whoever listens cannot make a client eat memory without end. The longest honest line is
// a status with some hundred connections and the output of failed candidates.
const maxAnswer = 4 << 20

// Client is a connection to a running init whose listener was checked. It carries one request and is not for concurrent use.
type Client struct {
	conn    *net.UnixConn
	address string
	pid     int
}

// Address is where the init listens.
func (c *Client) Address() string { return c.address }

// PID is the pid of the init, as this process sees it.
func (c *Client) PID() int { return c.pid }

// Close ends the connection, also under a Do that is waiting. What the init was asked for goes on.
func (c *Client) Close() error { return c.conn.Close() }

// Dial connects to the running init. An address of "" or "auto" finds it: the name for pid 1 of this container, else the only other
// init with our mount namespace in /proc/net/unix; a path or a name with "@" is used as it is.
// Each error is a sentence about which init could not be reached and why. Blocks until ctx is done at most.
func Dial(ctx context.Context, address string) (*Client, error) {
	if err := CheckAddress(address); err != nil {
		return nil, err
	}
	switch address {
	case Off:
		return nil, errors.New("no init to talk to: ENTRYPOINT_CONTROL is off")
	case "", Auto:
		return find(ctx)
	}
	c, err := connect(ctx, address)
	if err != nil {
		return nil, fmt.Errorf("no init to talk to at %q: %w", address, err)
	}
	return c, nil
}

// connect opens address and checks who listens there.
func connect(ctx context.Context, address string) (*Client, error) {
	conn, err := open(ctx, address)
	if err != nil {
		return nil, explain(err)
	}
	peer, err := peerOf(conn)
	if err == nil {
		_, pid, _ := splitName(address)
		err = checkServer(peer, pid, euid())
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return &Client{conn: conn, address: address, pid: int(peer.Pid)}, nil
}

// open connects; while the queue of the listener is full, which the kernel reports as EAGAIN, it tries again.
func open(ctx context.Context, address string) (*net.UnixConn, error) {
	var d net.Dialer
	for {
		conn, err := d.DialContext(ctx, "unix", address)
		if err == nil {
			return conn.(*net.UnixConn), nil
		}
		if !errors.Is(err, unix.EAGAIN) {
			return nil, err
		}
		if pause(ctx, 5*time.Millisecond); ctx.Err() != nil {
			return nil, fmt.Errorf("too many clients wait there already: %w", ctx.Err())
		}
	}
}

// explain turns the errors of connect(2) into what they mean for the user.
func explain(err error) error {
	switch {
	case errors.Is(err, unix.ECONNREFUSED):
		return errors.New("nobody listens there")
	case errors.Is(err, unix.ENOENT):
		return errors.New("there is no such socket")
	case errors.Is(err, unix.EACCES):
		return errors.New("permission denied: use the user of the init, or root")
	}
	return err
}

// Do sends the request, passes each event to the function (nil drops them) and returns the result. It blocks until the result
// is there or ctx is done; the error then wraps ctx.Err(), and what was asked for goes on. A refusal by the init is a Result with
// its code, not an error. The connection is used up afterwards.
func (c *Client) Do(ctx context.Context, r Request, event func(Event)) (Result, error) {
	defer c.conn.Close()
	r.V = Version
	if err := r.check(); err != nil {
		return failureOf(r, err), nil
	}
	line, proof, err := prepare(r)
	if err != nil {
		return Result{}, fmt.Errorf("cannot ask the init (pid %d): %w", c.pid, err)
	}
	defer proof.Close()
	stop := context.AfterFunc(ctx, func() { _ = c.conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	// An error here says less than the answer: an init that refuses us answers and closes without reading.
	sent := write(c.conn, line, true, descriptorsOf(proof, r.Upload)...)
	result, err := c.receive(event)
	switch {
	case err == nil:
		return result, nil
	case ctx.Err() != nil:
		return Result{}, fmt.Errorf("gave up waiting for the init (pid %d): %w", c.pid, ctx.Err())
	case errors.Is(err, io.EOF), errors.Is(err, unix.ECONNRESET):
		return Result{}, fmt.Errorf("the init (pid %d) closed the connection without an answer: it may have ended", c.pid)
	}
	return Result{}, fmt.Errorf("cannot read the answer of the init (pid %d): %w", c.pid, errors.Join(err, sent))
}

func failureOf(r Request, err error) Result {
	result := failure(codeOf(err), err)
	result.Op = r.Op
	return result
}

// prepare makes the request line and opens the proof of our mount namespace, which the caller closes.
func prepare(r Request) ([]byte, *os.File, error) {
	line := encodeLine(r)
	if len(line) > MaxRequest {
		return nil, nil, fmt.Errorf("the request is %d bytes long, at most %d are read", len(line), MaxRequest)
	}
	proof, err := os.Open(namespaceFile)
	return line, proof, err
}

// descriptorsOf is what goes with a request: the proof, then the upload if there is one.
func descriptorsOf(proof, upload *os.File) []int {
	fds := []int{int(proof.Fd())}
	if upload != nil {
		fds = append(fds, int(upload.Fd()))
	}
	return fds
}

// receive reads lines until the result. Events of a kind that this version does not know are skipped.
func (c *Client) receive(event func(Event)) (Result, error) {
	lines := bufio.NewReader(c.conn)
	for {
		line, err := boundedLine(lines)
		if err != nil {
			return Result{}, err
		}
		var head struct {
			Event string `json:"event"`
		}
		if err := json.Unmarshal(line, &head); err != nil {
			return Result{}, fmt.Errorf("not a line of the protocol: %w", err)
		}
		switch head.Event {
		case "result":
			var r Result
			err := json.Unmarshal(line, &r)
			return r, err
		case "phase":
			var e Event
			if err := json.Unmarshal(line, &e); err != nil {
				return Result{}, err
			}
			if event != nil {
				event(e)
			}
		}
	}
}

// boundedLine reads one line of at most maxAnswer bytes.
func boundedLine(r *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		if len(line) > maxAnswer {
			return nil, fmt.Errorf("a line longer than %d bytes", maxAnswer)
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return line, err
		}
	}
}

// joinPIDs writes pids for a sentence.
func joinPIDs(clients []*Client) string {
	var words []string
	for _, c := range clients {
		words = append(words, fmt.Sprint(c.pid))
	}
	return strings.Join(words, ", ")
}
