package here

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// read is the text of a small file of the kernel's; "" if it cannot be read.
func (s System) read(path string) string {
	f, err := os.Open(filepath.Join("/", s.Root, path))
	if err != nil {
		return ""
	}
	defer f.Close()
	b := make([]byte, 64<<10) // /proc/self/mountinfo is the longest
	n := 0
	for n < len(b) {
		m, err := f.Read(b[n:])
		n += m
		if err != nil || m == 0 {
			break
		}
	}
	return string(bytes.TrimSpace(b[:n]))
}

// number is a file that holds one number.
func (s System) number(path string) (int64, bool) {
	n, err := strconv.ParseInt(s.read(path), 10, 64)
	return n, err == nil
}

// process is the folder of the process whose rights are looked at.
func (s System) process() string {
	if s.Init > 0 {
		return fmt.Sprintf("proc/%d", s.Init)
	}
	return "proc/self"
}

// status is a line of the status file of that process, or of ours where its own cannot be seen.
func (s System) status(name string) string {
	for _, dir := range []string{s.process(), "proc/self"} {
		for line := range strings.Lines(s.read(dir + "/status")) {
			if rest, ok := strings.CutPrefix(line, name); ok {
				return strings.TrimSpace(rest)
			}
		}
	}
	return ""
}

// proc is whether processes can be seen.
func (e *examination) proc() Row {
	r := Row{Name: "/proc", State: Works, Found: "processes of all users can be seen"}
	options := ""
	for line := range strings.Lines(e.read("proc/self/mountinfo")) {
		if fields := strings.Fields(line); len(fields) > 4 && fields[4] == "/proc" {
			options = fields[len(fields)-1]
		}
	}
	switch i := strings.Index(options, "hidepid="); {
	case e.read("proc/self/stat") == "":
		r.State, r.Found = Fails, "/proc is not mounted, or is not that of this PID namespace"
		r.Remedy = "let the container runtime mount it"
	case i >= 0:
		value, _, _ := strings.Cut(options[i+len("hidepid="):], ",")
		if value != "0" && value != "off" && os.Geteuid() != 0 {
			r.State, r.Found = Limited, fmt.Sprintf("hidepid=%s hides processes of other users: `entrypoint ps` and proofs of who accepts see less", value)
			r.Remedy = "mount /proc without hidepid, or run the init and the app as one user"
		} else {
			r.Found += fmt.Sprintf(" (hidepid=%s does not concern this user)", value)
		}
	}
	return r
}

// The capabilities that the init has a use for.
var capabilityNames = []struct {
	bit  uint
	name string
}{
	{unix.CAP_CHOWN, "CHOWN"}, {unix.CAP_KILL, "KILL"}, {unix.CAP_SETGID, "SETGID"}, {unix.CAP_SETUID, "SETUID"},
	{unix.CAP_NET_BIND_SERVICE, "NET_BIND_SERVICE"}, {unix.CAP_SYS_PTRACE, "SYS_PTRACE"}, {unix.CAP_SYS_ADMIN, "SYS_ADMIN"},
}

// effective are the capabilities of the process whose rights are looked at.
func (s System) effective() uint64 {
	bits, _ := strconv.ParseUint(s.status("CapEff:"), 16, 64)
	return bits
}

// uid is the effective user of that process.
func (s System) uid() int {
	fields := strings.Fields(s.status("Uid:"))
	if len(fields) < 2 {
		return os.Geteuid()
	}
	n, _ := strconv.Atoi(fields[1])
	return n
}

// capabilities is whether the init may do what the configuration asks for.
func (e *examination) capabilities() Row {
	have, uid := e.effective(), e.uid()
	var names []string
	for _, c := range capabilityNames {
		if have&(1<<c.bit) != 0 {
			names = append(names, c.name)
		}
	}
	held := "none that matter here"
	if len(names) > 0 {
		held = strings.Join(names, " ")
	}
	r := Row{Name: "rights", State: Works, Found: fmt.Sprintf("uid %d, capabilities: %s", uid, held)}
	if u := e.asked.User; u != nil && u.UID != uid {
		if lacks := missing(have, unix.CAP_SETUID, unix.CAP_SETGID, unix.CAP_KILL); len(lacks) > 0 {
			r.State = Fails
			r.Found += fmt.Sprintf("; ENTRYPOINT_USER wants uid %d, which cannot be become and signalled without %s", u.UID, strings.Join(lacks, " "))
			r.Remedy = "add " + strings.Join(lacks, " ") + ", or start the container as that user and unset ENTRYPOINT_USER"
		}
	}
	return r
}

// missing names the capabilities that are not in have.
func missing(have uint64, wanted ...uint) []string {
	var names []string
	for _, c := range capabilityNames {
		if slices.Contains(wanted, c.bit) && have&(1<<c.bit) == 0 {
			names = append(names, c.name)
		}
	}
	return names
}

// ports is whether the configured ports may be bound.
func (e *examination) ports() Row {
	least, ok := e.number("proc/sys/net/ipv4/ip_unprivileged_port_start")
	if !ok {
		least = 1024 // before 4.11 it cannot be changed
	}
	r := Row{Name: "low ports", State: Works, Found: fmt.Sprintf("ports from %d on are free to bind (net.ipv4.ip_unprivileged_port_start)", least)}
	if e.effective()&(1<<unix.CAP_NET_BIND_SERVICE) != 0 {
		r.Found = "CAP_NET_BIND_SERVICE is there: every port is free to bind"
		return r
	}
	for _, port := range e.asked.Ports {
		if port > 0 && int64(port) < least {
			r.State = Fails
			r.Found += fmt.Sprintf("; ENTRYPOINT_LISTEN has port %d", port)
			r.Remedy = fmt.Sprintf("add NET_BIND_SERVICE, set that sysctl to %d, or listen on a higher port and map it", port)
			return r
		}
	}
	return r
}

// usualBacklog is what most programs ask for, and the kernel's default since 5.4.
const usualBacklog = 4096

// somaxconn is how many connections may wait while nobody accepts them, as in a swap of an app that cannot overlap.
func (e *examination) somaxconn() Row {
	r := Row{Name: "somaxconn", State: Works}
	n, ok := e.number("proc/sys/net/core/somaxconn")
	wanted := int64(usualBacklog)
	if e.asked.Backlog > 0 {
		wanted = int64(e.asked.Backlog)
	}
	switch {
	case !ok:
		r.Found = "net.core.somaxconn cannot be read here"
	case n < wanted:
		r.State, r.Found = Limited, fmt.Sprintf("at most %d connections wait to be accepted (net.core.somaxconn)", n)
		if e.asked.Backlog > 0 {
			r.Found += fmt.Sprintf(", not the %d of ENTRYPOINT_LISTEN", e.asked.Backlog)
		}
		r.Remedy = fmt.Sprintf("set the sysctl net.core.somaxconn to %d (docker --sysctl, securityContext.sysctls)", wanted)
	default:
		r.Found = fmt.Sprintf("%d connections may wait to be accepted (net.core.somaxconn)", n)
	}
	return r
}

// fewFiles is a limit of open files that a server with some connections reaches.
const fewFiles = 1024

// nofile is how many descriptors a process may have.
func (e *examination) nofile() Row {
	r := Row{Name: "nofile", State: Works}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		r.State, r.Found = Limited, "the limit of open files cannot be read: "+err.Error()
		return r
	}
	r.Found = fmt.Sprintf("a process may have %s descriptors open", amount(limit.Max))
	if limit.Max <= fewFiles {
		r.State = Limited
		r.Remedy = "raise the limit (docker --ulimit nofile=65536): each connection of the app is a descriptor"
	}
	return r
}

func amount(n uint64) string {
	if n >= 1<<62 {
		return "any number of"
	}
	return strconv.FormatUint(n, 10)
}

// root is whether the root file system can be written to.
func (e *examination) root() Row {
	r := Row{Name: "root", State: Works, Found: "the root file system can be written to"}
	var st unix.Statfs_t
	if err := unix.Statfs("/", &st); err != nil {
		r.State, r.Found = Limited, "the root file system cannot be looked at: "+err.Error()
	} else if st.Flags&unix.ST_RDONLY != 0 {
		r.Found = "the root file system is read-only: `docker cp` is refused, `entrypoint put` works"
	}
	return r
}

// clock is of use only where the container has a clock of its own.
func (e *examination) clock() (Row, bool) {
	for line := range strings.Lines(e.read("proc/self/timens_offsets")) {
		if f := strings.Fields(line); len(f) == 3 && (f[1] != "0" || f[2] != "0") {
			return Row{Name: "time", State: Works, Found: fmt.Sprintf("a time namespace shifts the %s clock by %ss: durations are right, ages since the boot are the container's", f[0], f[1])}, true
		}
	}
	return Row{}, false
}
