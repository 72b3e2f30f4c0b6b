package reaper

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The runtime's three hooks around a fork. They are on its list of names that stay as they are because others use them.

//go:linkname runtimeBeforeFork syscall.runtime_BeforeFork
func runtimeBeforeFork()

//go:linkname runtimeAfterFork syscall.runtime_AfterFork
func runtimeAfterFork()

//go:linkname runtimeAfterForkInChild syscall.runtime_AfterForkInChild
func runtimeAfterForkInChild()

// exitUnstarted is the code of a child that never got to its program.
const exitUnstarted = 253

// step is what the child was doing when it failed.
type step byte

const (
	stepExec step = iota
	stepSession
	stepGroup
	stepForeground
	stepFiles
	stepGroups
	stepGID
	stepUID
	stepDir
	stepPrivs
	stepParent
)

var stepNames = [...]string{
	"exec", "cannot make a session", "cannot make a process group", "cannot give it the terminal", "cannot hand over a descriptor",
	"cannot set the supplementary groups", "cannot set the group", "cannot set the user", "cannot enter the working directory",
	"cannot set no-new-privileges", "cannot set the parent-death signal",
}

func (s step) String() string {
	if int(s) < len(stepNames) {
		return stepNames[s]
	}
	return fmt.Sprintf("step %d", byte(s))
}

// allSignals is a full set.
var allSignals = ^uint64(0)

// ignoredAtStart are the signals, 0 for none, that were ignored when this process was started: nohup does that, and shells
// do for what they run in the background. The children get them as we got them, whatever we do with them ourselves. Only
// these can be told: for all others the Go runtime installs its handler before main and forgets what was there.
var ignoredAtStart = [...]syscall.Signal{
	ifIgnored(syscall.SIGHUP), ifIgnored(syscall.SIGINT), ifIgnored(syscall.SIGCONT), ifIgnored(syscall.SIGTSTP),
	ifIgnored(syscall.SIGTTIN), ifIgnored(syscall.SIGTTOU), ifIgnored(32), ifIgnored(33), ifIgnored(sigRTMin),
}

func ifIgnored(sig syscall.Signal) syscall.Signal {
	var old [8]uintptr
	_, _, err := syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, uintptr(sig), 0, uintptr(unsafe.Pointer(&old)), 8, 0, 0)
	if err != 0 || old[0] != 1 {
		return 0
	}
	return sig
}

// oomFile is a C string.
const oomFile = "/proc/self/oom_score_adj\x00"

// maxDigits holds any process number.
const maxDigits = 11

// forkArgs is a Spec in the form that the child can use without allocating: everything is a number or a C string.
type forkArgs struct {
	path, dir    *byte
	execFD       uintptr
	argv, envv   []*byte
	pidAt        []*byte // where the digits of the child's number go
	files, moved []int32
	groups       []uint32
	uid, gid     uintptr
	credential   bool
	session      bool
	foreground   bool
	tty          uintptr
	umask        int
	noNewPrivs   bool
	own          bool // not the child's business: of its record
	death        uintptr
	parent       uintptr
	pipe         uintptr
	nofile       unix.Rlimit
	setNofile    bool
	oomScore     []byte // empty: ours
	closeRange   bool
	empty        [1]byte
}

func newForkArgs(s *Spec) (*forkArgs, error) {
	a := &forkArgs{
		session: s.Session, foreground: s.Foreground, tty: uintptr(s.TTY), umask: s.Umask, noNewPrivs: s.NoNewPrivs, own: s.Own,
		death: uintptr(s.ParentDeathSignal), parent: uintptr(os.Getpid()), closeRange: closeRange(),
	}
	if s.FD > 0 {
		a.execFD = uintptr(s.FD)
	}
	var err error
	if a.path, err = syscall.BytePtrFromString(s.Path); err != nil {
		return nil, err
	}
	if s.Dir != "" {
		if a.dir, err = syscall.BytePtrFromString(s.Dir); err != nil {
			return nil, err
		}
	}
	if a.argv, err = syscall.SlicePtrFromStrings(s.Args); err != nil {
		return nil, err
	}
	if err = a.environment(s); err != nil {
		return nil, err
	}
	files := s.Files
	if files == nil {
		files = []int{0, 1, 2}
	}
	for _, fd := range files {
		a.files = append(a.files, int32(fd))
	}
	a.moved = make([]int32, len(a.files))
	if s.OOMScoreAdj != 0 {
		a.oomScore = strconv.AppendInt(nil, int64(s.OOMScoreAdj), 10)
	}
	if c := s.Credential; c != nil {
		a.credential, a.uid, a.gid, a.groups = true, uintptr(c.UID), uintptr(c.GID), c.Groups
	}
	return a, nil
}

// environment leaves room for digits behind each of the PIDVars.
func (a *forkArgs) environment(s *Spec) error {
	envv, err := syscall.SlicePtrFromStrings(s.otherEnv())
	if err != nil {
		return err
	}
	envv = envv[:len(envv)-1]
	for _, name := range s.PIDVars {
		if strings.ContainsAny(name, "=\x00") {
			return unix.EINVAL
		}
		b := append(make([]byte, 0, len(name)+1+maxDigits+1), name...)
		b = append(b, '=')
		b = b[:cap(b)]
		envv = append(envv, &b[0])
		a.pidAt = append(a.pidAt, &b[len(name)+1])
	}
	a.envv = append(envv, nil)
	return nil
}

// otherEnv is Env without the PIDVars: programs take the first of two, and that would be somebody else's number.
func (s *Spec) otherEnv() []string {
	if len(s.PIDVars) == 0 {
		return s.Env
	}
	return slices.DeleteFunc(slices.Clone(s.Env), func(kv string) bool {
		name, _, ok := strings.Cut(kv, "=")
		return ok && slices.Contains(s.PIDVars, name)
	})
}

func (a *forkArgs) setNoFile(lim *unix.Rlimit) {
	if lim != nil {
		a.nofile, a.setNofile = *lim, true
	}
}

// forkExec forks; the child goes through its steps to exec and never returns. It runs as the only thread of a copy of this
// process in which nothing may be allocated, no lock taken and no stack grown: raw system calls on prepared memory only.
// Every variable is declared before the fork. What fails is written to the pipe as step and error number.
//
//go:noinline
//go:norace
//go:nocheckptr
func forkExec(a *forkArgs) (pid uintptr, pidfd int32, errno syscall.Errno) {
	var (
		i, n   int
		r1     uintptr
		self   uintptr
		err    syscall.Errno
		at     step
		msg    [2]uint32
		digits [maxDigits]byte
		group  int32
		mask   uint64
		base   uintptr
		ignore = [8]uintptr{1} // struct sigaction with SIG_IGN
		reset  [8]uintptr      // and with SIG_DFL
	)
	pidfd = -1
	base = uintptr(max(len(a.files), 3)) + 1
	// The runtime restores what it finds here: the child takes no signal before its handlers are gone and its group is made.
	syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&allSignals)), uintptr(unsafe.Pointer(&mask)), 8, 0, 0)
	runtimeBeforeFork()
	pid, err = rawClone(uintptr(syscall.SIGCHLD)|unix.CLONE_PIDFD, &pidfd)
	if err == syscall.EINVAL { // a sandbox may refuse what it does not know
		pid, err = rawClone(uintptr(syscall.SIGCHLD), &pidfd)
	}
	if err != 0 || pid != 0 {
		runtimeAfterFork()
		syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&mask)), 0, 8, 0, 0)
		return pid, pidfd, err
	}
	runtimeAfterForkInChild()
	self, _, _ = syscall.RawSyscall(syscall.SYS_GETPID, 0, 0, 0)
	for i = 1; i <= maxSignal; i++ { // the runtime leaves our own handlers, and what signal.Ignore ignores would stay ignored
		syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, uintptr(i), uintptr(unsafe.Pointer(&reset)), 0, 8, 0, 0)
	}
	for i = 0; i < len(ignoredAtStart); i++ {
		if ignoredAtStart[i] != 0 {
			syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, uintptr(ignoredAtStart[i]), uintptr(unsafe.Pointer(&ignore)), 0, 8, 0, 0)
		}
	}

	if a.session {
		at = stepSession
		if _, _, err = syscall.RawSyscall(syscall.SYS_SETSID, 0, 0, 0); err != 0 {
			goto failed
		}
	} else {
		at = stepGroup
		if _, _, err = syscall.RawSyscall(syscall.SYS_SETPGID, 0, 0, 0); err != 0 {
			goto failed
		}
	}
	if a.foreground { // from the background the kernel lets us only while SIGTTOU is blocked, as all are here
		at = stepForeground
		group = int32(self)
		_, _, err = syscall.RawSyscall(syscall.SYS_IOCTL, a.tty, syscall.TIOCSPGRP, uintptr(unsafe.Pointer(&group)))
		if err != 0 && err != syscall.ENOTTY && err != syscall.ENXIO && err != syscall.EBADF && err != syscall.EIO {
			goto failed
		}
	}
	if len(a.oomScore) > 0 {
		r1, _, err = syscall.RawSyscall(syscall.SYS_OPENAT, 0, uintptr(unsafe.Pointer(unsafe.StringData(oomFile))), syscall.O_WRONLY|syscall.O_CLOEXEC)
		if err == 0 {
			syscall.RawSyscall(syscall.SYS_WRITE, r1, uintptr(unsafe.Pointer(&a.oomScore[0])), uintptr(len(a.oomScore)))
			syscall.RawSyscall(syscall.SYS_CLOSE, r1, 0, 0)
		}
	}

	// Descriptors: first copies above all places, then into place.
	at = stepFiles
	if a.pipe, _, err = syscall.RawSyscall(unix.SYS_FCNTL, a.pipe, unix.F_DUPFD_CLOEXEC, base); err != 0 {
		goto failed
	}
	if a.execFD != 0 {
		if a.execFD, _, err = syscall.RawSyscall(unix.SYS_FCNTL, a.execFD, unix.F_DUPFD_CLOEXEC, base); err != 0 {
			goto failed
		}
	}
	for i = 0; i < len(a.files); i++ {
		if a.files[i] < 0 {
			continue
		}
		if r1, _, err = syscall.RawSyscall(unix.SYS_FCNTL, uintptr(a.files[i]), unix.F_DUPFD_CLOEXEC, base); err != 0 {
			goto failed
		}
		a.moved[i] = int32(r1)
	}
	for i = 0; i < len(a.files); i++ {
		if a.files[i] < 0 {
			syscall.RawSyscall(syscall.SYS_CLOSE, uintptr(i), 0, 0)
			continue
		}
		if _, _, err = syscall.RawSyscall(syscall.SYS_DUP3, uintptr(a.moved[i]), uintptr(i), 0); err != 0 {
			goto failed
		}
	}
	for i = len(a.files); i < 3; i++ {
		syscall.RawSyscall(syscall.SYS_CLOSE, uintptr(i), 0, 0)
	}
	if a.closeRange {
		syscall.RawSyscall(unix.SYS_CLOSE_RANGE, uintptr(len(a.files)), 0x7fffffff, unix.CLOSE_RANGE_CLOEXEC)
	}

	if a.umask >= 0 {
		syscall.RawSyscall(syscall.SYS_UMASK, uintptr(a.umask), 0, 0)
	}
	if a.credential {
		at = stepGroups
		if len(a.groups) > 0 {
			_, _, err = syscall.RawSyscall(sysSetgroups, uintptr(len(a.groups)), uintptr(unsafe.Pointer(&a.groups[0])), 0)
		} else {
			_, _, err = syscall.RawSyscall(sysSetgroups, 0, 0, 0)
		}
		if err != 0 {
			goto failed
		}
		at = stepGID
		if _, _, err = syscall.RawSyscall(sysSetgid, a.gid, 0, 0); err != 0 {
			goto failed
		}
		at = stepUID
		if _, _, err = syscall.RawSyscall(sysSetuid, a.uid, 0, 0); err != 0 {
			goto failed
		}
	}
	if a.dir != nil {
		at = stepDir
		if _, _, err = syscall.RawSyscall(syscall.SYS_CHDIR, uintptr(unsafe.Pointer(a.dir)), 0, 0); err != 0 {
			goto failed
		}
	}
	if a.noNewPrivs {
		at = stepPrivs
		if _, _, err = syscall.RawSyscall6(syscall.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0); err != 0 {
			goto failed
		}
	}
	if a.setNofile {
		syscall.RawSyscall6(unix.SYS_PRLIMIT64, 0, unix.RLIMIT_NOFILE, uintptr(unsafe.Pointer(&a.nofile)), 0, 0, 0)
	}
	if a.death != 0 { // after the credentials: changing them forgets it
		at = stepParent
		if _, _, err = syscall.RawSyscall6(syscall.SYS_PRCTL, unix.PR_SET_PDEATHSIG, a.death, 0, 0, 0, 0); err != 0 {
			goto failed
		}
		if r1, _, _ = syscall.RawSyscall(syscall.SYS_GETPPID, 0, 0, 0); r1 != a.parent { // it died meanwhile
			syscall.RawSyscall(syscall.SYS_KILL, self, a.death, 0)
		}
	}

	n = maxDigits
	for r1 = self; r1 > 0; r1 /= 10 {
		n--
		digits[n] = byte('0' + r1%10)
	}
	for i = 0; i < len(a.pidAt); i++ {
		for r1 = uintptr(n); r1 < maxDigits; r1++ {
			*(*byte)(unsafe.Pointer(uintptr(unsafe.Pointer(a.pidAt[i])) + r1 - uintptr(n))) = digits[r1]
		}
	}

	syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&mask)), 0, 8, 0, 0)
	at = stepExec
	if a.execFD != 0 {
		_, _, err = syscall.RawSyscall6(unix.SYS_EXECVEAT, a.execFD, uintptr(unsafe.Pointer(&a.empty[0])),
			uintptr(unsafe.Pointer(&a.argv[0])), uintptr(unsafe.Pointer(&a.envv[0])), unix.AT_EMPTY_PATH, 0)
	} else {
		_, _, err = syscall.RawSyscall(syscall.SYS_EXECVE, uintptr(unsafe.Pointer(a.path)),
			uintptr(unsafe.Pointer(&a.argv[0])), uintptr(unsafe.Pointer(&a.envv[0])))
	}

failed:
	*(*byte)(unsafe.Pointer(&msg[0])) = byte(at)
	msg[1] = uint32(err)
	syscall.RawSyscall(syscall.SYS_WRITE, a.pipe, uintptr(unsafe.Pointer(&msg[0])), unsafe.Sizeof(msg))
	for {
		syscall.RawSyscall(syscall.SYS_EXIT_GROUP, exitUnstarted, 0, 0)
	}
}
