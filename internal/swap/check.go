package swap

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/hotswap-init/entrypoint/handoff"
	"github.com/hotswap-init/entrypoint/internal/probe"
	"github.com/hotswap-init/entrypoint/reaper"
)

// HTTPProbeRole is the argv[0] under which the init runs itself to ask over the network for a probe.
const HTTPProbeRole = "entrypoint:http-probe"

const (
	// maxDoors bounds the connections of one exec check to the candidate at once.
	maxDoors = 64
	// lastWords bounds what of a check's output goes into a sentence.
	lastWords = 200
	// maxWords bounds what is kept of its output.
	maxWords = 4 << 10
)

// exec runs a command as the app's user, without the app's sockets, and waits for it. It is told how to reach the candidate.
// Its last words are in the error.
func (c *child) exec(ctx context.Context, argv []string) error {
	spec, release, err := c.app.beside(argv, c.program.dir, c.env)
	if err != nil {
		return err
	}
	defer release()
	v := &visit{c: c, started: make(chan struct{})} // from here on begun is called in any case: doors wait for that
	v.doors = probe.NewDoors(maxDoors, v.admits)
	defer v.doors.Close() // nothing is lost by a listener that cannot be closed
	spec.Env = append(spec.Env[:len(spec.Env):len(spec.Env)], v.environment()...)
	said, err := c.app.runHelper(ctx, spec, v.begun)
	switch {
	case err != nil && said != "":
		err = &probe.Said{Err: err, Words: ending(said)}
	case err != nil && v.closed != nil:
		err = fmt.Errorf("%w (it had no address of the candidate: %w)", err, v.closed)
	}
	return err
}

// visit is one run of an exec check.
type visit struct {
	c       *child
	doors   *probe.Doors
	started chan struct{} // closed when root is known
	root    int           // process number of the command; 0: it did not start
	closed  error         // why there is no way to the candidate
}

// begun is told of the command's process.
func (v *visit) begun(pid int) {
	v.root = pid
	close(v.started)
}

// admits tells whether a connection comes from the command. Others in this network namespace shall not talk to a candidate. A
// process whose descriptors cannot be read gets the benefit of the doubt.
func (v *visit) admits(conn net.Conn) bool {
	<-v.started
	if v.root == 0 {
		return false
	}
	var list []int
	for _, pid := range v.c.app.Reaper.Descendants() {
		if inTree(pid, v.root) {
			list = append(list, pid)
		}
	}
	by, known := handoff.ConnectedBy(conn, list)
	return by || !known
}

// environment opens a door to each address of the candidate, and says where they are.
func (v *visit) environment() []string {
	c := v.c
	env := []string{
		"ENTRYPOINT_CANDIDATE_GENERATION=" + strconv.Itoa(c.gen),
		"ENTRYPOINT_CANDIDATE_PID=" + strconv.Itoa(c.process.PID()),
		"ENTRYPOINT_CANDIDATE_WORKER=" + strconv.Itoa(c.worker),
	}
	for i, e := range c.endpoints() {
		at, err := v.doors.Open(func(ctx context.Context) (net.Conn, error) { return c.dialHeld(ctx, e.Network, e.Address) })
		if err != nil {
			v.closed = err
			return env
		}
		if i == 0 {
			env = append(env, "ENTRYPOINT_CANDIDATE_ADDRESS="+at)
		}
		env = append(env, "ENTRYPOINT_CANDIDATE_"+variableName(e.Name)+"_ADDRESS="+at)
	}
	return env
}

// variableName makes the name of a socket a part of a variable's.
func variableName(name string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			return r
		}
		return '_'
	}, name)
}

// ask makes one request over conn in a helper process: PID 1 parses nothing that comes from the network. The request goes
// through a file in memory, because a command line is there for everybody to see and a pipe may be too small.
func (c *child) ask(ctx context.Context, conn net.Conn, r probe.Request) error {
	fd, err := dupConn(conn)
	if err != nil {
		return fmt.Errorf("cannot be asked: %w", err)
	}
	defer unix.Close(fd)
	text, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("cannot be asked: %w", err)
	}
	question, err := memoryFile("request", text)
	if err != nil {
		return fmt.Errorf("cannot be asked: %w", err)
	}
	defer unix.Close(question)
	spec := reaper.Spec{
		Path: c.app.Helper, Args: []string{HTTPProbeRole}, Env: c.trust(),
		Session: true, Credential: c.app.helperUser(), Umask: -1, NoNewPrivs: true,
		ParentDeathSignal: c.app.ParentDeath,
		Files:             []int{question, -1, 2, fd},
	}
	said, err := c.app.runHelper(ctx, spec, nil)
	if errors.As(err, new(*reaper.StartError)) && spec.Credential != c.app.Credential {
		// Root without capabilities, a user namespace without that number, a file of ours that is for root alone.
		spec.Credential, spec.Files = c.app.Credential, []int{question, -1, 2, fd}
		said, err = c.app.runHelper(ctx, spec, nil)
	}
	if err != nil && ctx.Err() == nil && said != "" {
		return errors.New(said)
	}
	return err
}

// nobody is the user of what parses bytes of the network, where there is no better one.
const nobody = 65534

// helperUser is whom a helper runs as: the app's user, or as good as nobody, without capabilities, rather than root.
func (a *App) helperUser() *reaper.Credential {
	if a.Credential == nil && os.Geteuid() == 0 {
		return &reaper.Credential{UID: nobody, GID: nobody}
	}
	return a.Credential
}

// trust is what of the app's environment says where the system's certificates are.
func (c *child) trust() []string {
	var env []string
	for _, name := range []string{"SSL_CERT_FILE", "SSL_CERT_DIR"} {
		if v := lookup(c.env, name); v != "" {
			env = append(env, name+"="+v)
		}
	}
	return env
}

// memoryFile is an unnamed file with that content (Linux 3.17), or where a sandbox has none a pipe, if it is large enough. The
// caller closes it.
func memoryFile(name string, content []byte) (int, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_NOEXEC_SEAL) // a host may demand that (vm.memfd_noexec)
	if err == unix.EINVAL {                                                  // before Linux 6.3 nobody knows it
		fd, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	}
	if err == unix.ENOSYS || err == unix.EPERM {
		return filledPipe(content)
	}
	if err != nil {
		return -1, err
	}
	for len(content) > 0 {
		n, err := unix.Write(fd, content)
		if err != nil {
			unix.Close(fd)
			return -1, err
		}
		content = content[n:]
	}
	return fd, nil
}

// filledPipe is the end of a pipe from which that can be read. The caller closes it.
func filledPipe(content []byte) (int, error) {
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return -1, err
	}
	defer unix.Close(ends[1])
	n, err := unix.Write(ends[1], content)
	if err == nil && n < len(content) {
		err = fmt.Errorf("no memory file can be made here, and a pipe takes only %d of %d bytes", n, len(content))
	}
	if err != nil {
		unix.Close(ends[0])
		return -1, err
	}
	return ends[0], nil
}

// runHelper starts a process and waits for its end; when ctx ends it is killed, with what belongs to it. What it writes to those of its
// descriptors that are -1 in the Spec is read, and the last line returned. begun, if not nil, is told its process number, 0
// if it did not start.
func (a *App) runHelper(ctx context.Context, spec reaper.Spec, begun func(pid int)) (said string, err error) {
	r, w, err := wordsPipe()
	if err == nil {
		defer r.Close()
		defer w.Close()
		for i, fd := range spec.Files {
			if fd == -1 {
				spec.Files[i] = rawFD(w)
			}
		}
	}
	var p *reaper.Process
	if err == nil {
		p, err = a.Reaper.Start(spec)
	}
	if begun != nil {
		pid := 0
		if err == nil {
			pid = p.PID()
		}
		begun(pid)
	}
	if err != nil {
		return "", err
	}
	w.Close()
	words := make(chan string, 1)
	go func() { words <- lastLine(&belated{pipe: r}) }()
	err = a.awaitHelper(ctx, p, spec.Path != a.Helper)
	// What could not be seen to belong to it may hold the pipe for as long as it likes.
	_ = r.SetReadDeadline(time.Now().Add(tailWait))
	return <-words, err
}

// awaitHelper waits for the end of a process and leaves nothing behind that can be seen to come from it.
func (a *App) awaitHelper(ctx context.Context, p *reaper.Process, foreign bool) error {
	select {
	case <-p.Done():
	case <-ctx.Done():
		a.endTree(p, foreign)
		<-p.Done()
		return context.Cause(ctx)
	}
	a.endTree(p, foreign) // what it left behind
	if st := p.Status(); !st.Success() {
		return errors.New(st.String())
	}
	return nil
}

// treeRounds bounds the looks at a tree that forks while it is being killed.
const treeRounds = 4

// endTree kills a helper's process group and, of a command that is not ours, everything in its session and below it: timeout(1)
// and shells with job control make groups of their own. What has left its session and lost its parent is not recognised.
func (a *App) endTree(p *reaper.Process, foreign bool) {
	for range treeRounds {
		found := foreign && a.killTree(p.PID())
		_ = p.SignalGroup(syscall.SIGKILL)
		if !found {
			return
		}
	}
}

// killTree kills what belongs to a tree now, except its root, and tells whether there was anything but the root.
func (a *App) killTree(root int) (found bool) {
	for _, pid := range a.Reaper.Descendants() {
		if pid == root || !inTree(pid, root) {
			continue
		}
		found = killMember(pid, root) || found
	}
	return found
}

// killMember kills a process if it is still in a tree, and tells whether it was.
func killMember(pid, root int) bool {
	fd, err := unix.PidfdOpen(pid, 0)
	if err == nil {
		defer unix.Close(fd)
	}
	if !inTree(pid, root) { // the number may have been given to somebody else before it was opened
		return false
	}
	if err == nil {
		err = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
	}
	if err == unix.ENOSYS || err == unix.EPERM { // no such call here, or a filter refuses it
		_ = unix.Kill(pid, unix.SIGKILL)
	}
	return true
}

// lastLine reads to the end, or to the reader's deadline, and gives the last line that is not empty, without control
// characters.
func lastLine(r io.Reader) string {
	var kept []byte
	buf := make([]byte, maxWords)
	for {
		n, err := r.Read(buf)
		kept = append(kept, buf[:n]...)
		kept = append(kept[:0], kept[max(0, len(kept)-maxWords):]...)
		if err != nil {
			break
		}
	}
	kept = bytes.TrimSpace(kept)
	kept = kept[bytes.LastIndexByte(kept, '\n')+1:]
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(string(kept), "?")))
}

// ending is what of a line goes into a sentence.
func ending(line string) string {
	for len(line) > lastWords {
		_, size := utf8.DecodeRuneInString(line)
		line = line[size:]
	}
	return strings.TrimSpace(line)
}

// dupConn copies the descriptor of a connection, close-on-exec. The caller closes it.
func dupConn(conn net.Conn) (int, error) {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return -1, errors.New("it has no descriptor")
	}
	rc, err := sc.SyscallConn()
	if err != nil {
		return -1, err
	}
	fd, dup := -1, error(nil)
	err = rc.Control(func(n uintptr) { fd, dup = unix.FcntlInt(n, unix.F_DUPFD_CLOEXEC, 3) })
	return fd, errors.Join(err, dup)
}
