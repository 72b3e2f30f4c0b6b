//go:build integration

package integration

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hotswap-init/entrypoint/integration/engine"
	"github.com/hotswap-init/entrypoint/integration/load"
)

// refused is a system call that a sandbox may refuse, for the init and for all that it starts.
type refused struct {
	name   string
	number int
	where  string // of its uses which: see testapp/deny.go
	then   string // for the page
	says   string // the status, or the log, whatever the app does
	never  string // what the log does not say
	hidden string // it says so too of an app that binds by itself: nothing is held then, and the old generation stops first
	shared bool   // the app has to linger, for nobody can tell whose connections are whose
	ends   int    // the container cannot begin, and ends with that
}

func option(level, name int) string { return fmt.Sprintf("1=%d:2=%d", level, name) }

const (
	nothingElse = "Another call does the same."
	fromPath    = "The program runs from its path; status and log say so."
	stopsFirst  = "What an app binds by itself is not held: the old generation stops first. With `ENTRYPOINT_LISTEN` nothing changes. Status and log say so."
	notBegun    = "The container does not begin, and says why."
)

// refusals are the calls that the init can do without, and some that it cannot.
var refusals = []refused{
	{name: "memfd_create", number: unix.SYS_MEMFD_CREATE, then: fromPath, says: "no private copy could be made"},
	{name: "execveat", number: unix.SYS_EXECVEAT, then: fromPath, says: "the kernel executes no memory files"},
	{name: "fcntl F_ADD_SEALS", number: unix.SYS_FCNTL, where: fmt.Sprintf("1=%d", unix.F_ADD_SEALS), then: fromPath, says: "the memory file cannot be sealed"},
	{name: "seccomp", number: unix.SYS_SECCOMP, then: stopsFirst, hidden: "cannot watch bind by seccomp user notification"},
	{name: "ioctl", number: unix.SYS_IOCTL, then: stopsFirst, hidden: "cannot put a socket under a program's bind"},
	{name: "getxattr", number: unix.SYS_GETXATTR, then: stopsFirst, hidden: "the old generation stops first"},
	{name: "setsockopt SO_ATTACH_REUSEPORT_CBPF", number: unix.SYS_SETSOCKOPT, where: option(unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_CBPF),
		then: "All generations share one socket; status says so.", says: "cannot attach the steering program", shared: true},
	{name: "socket AF_NETLINK", number: unix.SYS_SOCKET, where: fmt.Sprintf("0=%d", unix.AF_NETLINK),
		then: "Connections are counted in `/proc/net`, and a start takes longer to be seen.", never: "cannot be counted"},
	{name: "getsockopt TCP_INFO", number: unix.SYS_GETSOCKOPT, where: option(unix.IPPROTO_TCP, unix.TCP_INFO), then: "Queues are read by sock_diag."},
	{name: "inotify_init1", number: unix.SYS_INOTIFY_INIT1, then: "The watch polls; the log says so.", says: "looked at every"},
	{name: "inotify_add_watch", number: unix.SYS_INOTIFY_ADD_WATCH, then: "The watch polls; the log says so.", says: "looked at every"},
	{name: "pidfd_open", number: unix.SYS_PIDFD_OPEN, then: "Signals go by number, while the number cannot be given away."},
	{name: "pidfd_send_signal", number: unix.SYS_PIDFD_SEND_SIGNAL, then: "Signals go by number, while the number cannot be given away."},
	{name: "process_vm_readv", number: unix.SYS_PROCESS_VM_READV, then: nothingElse},
	{name: "close_range", number: unix.SYS_CLOSE_RANGE, then: nothingElse},
	{name: "copy_file_range", number: unix.SYS_COPY_FILE_RANGE, then: nothingElse},
	{name: "sendfile", number: unix.SYS_SENDFILE, then: nothingElse},
	{name: "statx", number: unix.SYS_STATX, then: nothingElse},
	{name: "splice", number: unix.SYS_SPLICE, then: nothingElse},
	{name: "fallocate", number: unix.SYS_FALLOCATE, then: nothingElse},
	{name: "fgetxattr", number: unix.SYS_FGETXATTR, then: nothingElse},
	{name: "faccessat2", number: unix.SYS_FACCESSAT2, then: nothingElse},
	{name: "renameat2", number: unix.SYS_RENAMEAT2, then: nothingElse},
	{name: "prctl PR_SET_CHILD_SUBREAPER", number: unix.SYS_PRCTL, where: fmt.Sprintf("0=%d", unix.PR_SET_CHILD_SUBREAPER), then: "PID 1 has the orphans anyway."},
	{name: "setfsuid", number: unix.SYS_SETFSUID, then: "A process of root in the same network namespace can join the group of a held port."},
	{name: "prlimit64", number: unix.SYS_PRLIMIT64, then: "Limits stay as they are."},
	{name: "madvise", number: unix.SYS_MADVISE, then: "The init stays a little larger."},
	{name: "sched_getaffinity", number: unix.SYS_SCHED_GETAFFINITY, then: "The init uses one processor."},
	{name: "membarrier", number: unix.SYS_MEMBARRIER, then: "A pause takes its place."},
	{name: "rseq", number: unix.SYS_RSEQ, then: "Nothing."},
	{name: "ptrace", number: unix.SYS_PTRACE, then: "Nothing."},
	{name: "clone3", number: unix.SYS_CLONE3, then: "Nothing."},
	{name: "setsid", number: unix.SYS_SETSID, then: notBegun, says: "cannot make a session", ends: 126},
	{name: "faccessat", number: unix.SYS_FACCESSAT, then: notBegun, says: "it cannot be executed", ends: 126},
	{name: "setsockopt SO_REUSEPORT", number: unix.SYS_SETSOCKOPT, where: option(unix.SOL_SOCKET, unix.SO_REUSEPORT),
		then: notBegun, says: `option \"reuseport\"`, ends: 1},
}

func (r refused) rule(errno syscall.Errno) string {
	rule := fmt.Sprintf("%d:%d", r.number, errno)
	if r.where != "" {
		rule += ":" + r.where
	}
	return rule
}

// TestFaultsRefusedCalls refuses each call in turn with both errors, to an app that inherits its socket and to one that binds it by
// itself; the errors alternate unless FAULTS=all.
func TestFaultsRefusedCalls(t *testing.T) {
	var rows []row
	for i, r := range refusals {
		for k, errno := range []syscall.Errno{unix.EPERM, unix.ENOSYS} {
			for _, own := range []bool{false, true} {
				if r.ends > 0 && own || os.Getenv("FAULTS") != "all" && own != ((i+k)%2 == 0) {
					continue
				}
				name := fmt.Sprintf("%s-%s-%s", strings.ReplaceAll(r.name, " ", "-"), unix.ErrnoName(errno), map[bool]string{false: "inherited", true: "transparent"}[own])
				rows = append(rows, row{name, func(t *testing.T, e engine.Engine) { withoutCall(t, e, r, errno, own) }})
			}
		}
	}
	table(t, "unshare", rows)
}

// withoutCall swaps by the watch and by a command, under load where the mode promises that nothing is lost.
func withoutCall(t *testing.T, e engine.Engine, r refused, errno syscall.Errno, own bool) {
	j := newTrial(t, own)
	handed, err := os.Create(filepath.Join(t.TempDir(), "handed"))
	must(j.scene, err)
	defer handed.Close()
	spec := engine.Spec{Deny: []string{r.rule(errno)}, Handed: handed, Env: []string{
		"ENTRYPOINT_SMOKE=http://HERE/healthz,exec:/testapp tool orphans 2 1h", "ENTRYPOINT_DRAIN_QUIET=3s",
		"ENTRYPOINT_WATCH=auto", "ENTRYPOINT_WATCH_SETTLE=50ms", "ENTRYPOINT_WATCH_POLL=300ms",
	}}
	if r.ends > 0 {
		spec.Env = append(spec.Env, "ENTRYPOINT_LISTEN=tcp://"+j.addr)
		j.start(e, "version=v1", spec)
		j.waitExit(r.ends)
		j.logged(r.says)
		return
	}
	settings := "linger=0s"
	if r.shared {
		settings = ""
	}
	j.beginSpec(e, settings, spec)
	promised := !own || r.hidden == ""
	if promised {
		j.load = load.Start(context.Background(), load.Options{
			Address: j.addr, Fresh: 3, Slow: 2, SlowPath: "/slow?ms=30", Pace: 5 * time.Millisecond, Timeout: 2 * patience,
		})
		j.answered(10)
	}
	j.put(settings + " version=v2") // the watch sees it
	j.waitVersion("v2")
	j.waitStatus("generation 2 is alone", func(st status) bool { return st.Active == 2 && st.State == "serving" && st.live() == 1 })
	code, out := j.exec("reload")
	if code != 0 || !strings.Contains(out, "generation 3 is active") {
		t.Errorf("reload: exit code %d: %s", code, out)
	}
	if first := strings.Contains(out, "stopping generation 2 first"); first != (own && r.hidden != "") {
		t.Errorf("the old generation stops first: %v: %s", first, out)
	}
	st := j.settled()
	j.lacks(j.host(st.pidOf(st.Active)), handed)
	from := "memfd"
	if r.then == fromPath {
		from = "path"
	}
	if facts, _ := j.facts(); facts.Exec != from {
		t.Errorf("the program runs from %s, want %s: %s", facts.Exec, from, facts.Why)
	}
	if promised {
		j.answered(20)
		j.lossless()
	}
	j.logged(r.says)
	if r.never != "" && strings.Contains(j.c.Logs(), r.never) {
		t.Errorf("the log says %q", r.never)
	}
	if own {
		j.logged(r.hidden)
	}
	j.eventually("only the init and the app are left", func() error {
		if list := j.processes(); len(list) != 2 {
			return fmt.Errorf("%v", list)
		}
		return nil
	})
	j.signal(syscall.SIGTERM)
	j.waitExit(0)
}

// lacks wants a process not to have a file open.
func (s *scene) lacks(pid int, file *os.File) {
	s.t.Helper()
	ours, err := file.Stat()
	must(s, err)
	list, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	must(s, err)
	if len(list) == 0 {
		s.t.Errorf("the descriptors of process %d cannot be seen", pid)
	}
	for _, fd := range list {
		if info, err := os.Stat(fd); err == nil && os.SameFile(info, ours) {
			s.t.Errorf("the app has what was handed to the init: %s", fd)
		}
	}
}

// logged wants words in the log, or in what status said last.
func (j *trial) logged(words string) {
	j.t.Helper()
	if words == "" {
		return
	}
	j.eventually(fmt.Sprintf("something says %q", words), func() error { // the log is written by a goroutine of its own
		if strings.Contains(j.c.Logs(), words) {
			return nil
		}
		if _, out := j.exec("status", "--json"); !strings.Contains(out, words) {
			return errAgain
		}
		return nil
	})
}
