package handoff

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Protocols is a set of ways to tell a program about its sockets and to be told that it is ready.
type Protocols uint

// The protocols. Each uses variables of its own, so all can be spoken at once.
const (
	// Systemd is LISTEN_FDS, LISTEN_PID and LISTEN_FDNAMES: sd_listen_fds(3).
	Systemd Protocols = 1 << iota
	// Einhorn is EINHORN_FD_COUNT, EINHORN_FD_<n>, EINHORN_FDS and the ack over EINHORN_SOCK_FD or EINHORN_SOCK_PATH.
	Einhorn
	// ServerStarter is SERVER_STARTER_PORT and SERVER_STARTER_GENERATION: Perl's Server::Starter.
	ServerStarter
	// Crank is NOTIFY_FD, one end of a datagram pair.
	Crank
	// NotifySocket is NOTIFY_SOCKET: sd_notify(3).
	NotifySocket
	// AllProtocols is all of them.
	AllProtocols = Systemd | Einhorn | ServerStarter | Crank | NotifySocket
)

var protocolNames = []struct {
	name string
	bit  Protocols
}{{"systemd", Systemd}, {"einhorn", Einhorn}, {"server_starter", ServerStarter}, {"crank", Crank}, {"notify", NotifySocket}}

// ParseProtocols reads "all", "none", or a comma-separated list of systemd, einhorn, server_starter, crank and notify.
func ParseProtocols(list string) (Protocols, error) {
	var p Protocols
	for _, word := range strings.Split(list, ",") {
		word = strings.ToLower(strings.TrimSpace(word))
		bit, known := protocol(word)
		if !known {
			return 0, fmt.Errorf("unknown protocol %q; known are all, none, systemd, einhorn, server_starter, crank, notify", word)
		}
		p |= bit
	}
	return p, nil
}

func protocol(word string) (Protocols, bool) {
	switch word {
	case "all":
		return AllProtocols, true
	case "none", "":
		return 0, true
	}
	for _, n := range protocolNames {
		if n.name == word {
			return n.bit, true
		}
	}
	return 0, false
}

// String lists the names.
func (p Protocols) String() string {
	var names []string
	for _, n := range protocolNames {
		if p&n.bit != 0 {
			names = append(names, n.name)
		}
	}
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ",")
}

// Handover is what a program is started with.
type Handover struct {
	// Env are variables to append to the program's environment, after StripEnv.
	Env []string
	// PIDVars are the names of variables whose value is the program's own process id, which is only known after fork.
	PIDVars []string
	// FDs become the program's descriptors 3 and up, in this order. They stay ours.
	FDs []int
}

// Handover describes the lease to one worker in the words of each protocol of p. The lease may have no sockets (then only
// what comes from n); n may be nil (then no readiness protocol). generation and worker are always told.
func (l *Lease) Handover(p Protocols, n *Notify, gen, worker int) Handover {
	files := l.Files()
	h := Handover{}
	for _, f := range files {
		h.FDs = append(h.FDs, f.FD)
	}
	h.set("ENTRYPOINT_GENERATION", strconv.Itoa(gen))
	h.set("ENTRYPOINT_WORKER", strconv.Itoa(worker))
	if p&Systemd != 0 && len(files) > 0 {
		h.systemd(files)
	}
	if p&ServerStarter != 0 {
		h.serverStarter(l.specs(), gen)
	}
	if n != nil && p&NotifySocket != 0 {
		h.set("NOTIFY_SOCKET", n.Address())
	}
	if n != nil && p&Crank != 0 {
		h.set("NOTIFY_FD", strconv.Itoa(h.pass(n.crankFD)))
	}
	if p&Einhorn != 0 {
		h.einhorn(files, n, worker)
	}
	return h
}

func (h *Handover) set(name, value string) { h.Env = append(h.Env, name+"="+value) }

// pass adds a descriptor and returns its number in the program.
func (h *Handover) pass(fd int) int {
	h.FDs = append(h.FDs, fd)
	return firstInherited + len(h.FDs) - 1
}

func (h *Handover) systemd(files []File) {
	names := make([]string, len(files))
	for i, f := range files {
		names[i] = f.Name
	}
	h.set("LISTEN_FDS", strconv.Itoa(len(files)))
	h.set("LISTEN_FDNAMES", strings.Join(names, ":"))
	h.PIDVars = append(h.PIDVars, "LISTEN_PID")
}

func (h *Handover) serverStarter(specs []string, gen int) {
	if len(specs) > 0 {
		h.set("SERVER_STARTER_PORT", strings.Join(specs, ";"))
	}
	h.set("SERVER_STARTER_GENERATION", strconv.Itoa(gen))
}

// specs are the lease's files as server_starter writes them: port=fd, host:port=fd, path=fd.
func (l *Lease) specs() []string {
	s := l.set
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	fd := firstInherited
	for _, h := range s.held {
		if s.leases[l.at] != l || h.learned || h.slotOf(l.at) == nil {
			continue
		}
		if h.addr.Scheme != "" {
			out = append(out, h.addr.spec(h.at.port)+"="+strconv.Itoa(fd))
		}
		fd++
	}
	return out
}

// einhorn: EINHORN_FDS is the older form, and the only one that socketmaster sets.
func (h *Handover) einhorn(files []File, n *Notify, worker int) {
	h.set("EINHORN_FD_COUNT", strconv.Itoa(len(files)))
	fds := make([]string, len(files))
	for i := range files {
		fds[i] = strconv.Itoa(firstInherited + i)
		h.set("EINHORN_FD_"+strconv.Itoa(i), fds[i])
	}
	if len(fds) > 0 {
		h.set("EINHORN_FDS", strings.Join(fds, " "))
	}
	h.set("EINHORN_MASTER_PID", strconv.Itoa(os.Getpid()))
	h.set("EINHORN_CHILD_INDEX", strconv.Itoa(worker))
	if n == nil {
		return
	}
	h.set("EINHORN_SOCK_FD", strconv.Itoa(h.pass(n.einhornFD)))
	if n.einhornPath != "" {
		h.set("EINHORN_SOCK_PATH", n.einhornPath)
	}
}

// ours are the variables by which an init above us spoke to us. Only exact names of systemd's and crank's: a program may
// well have a LISTEN_ADDR of its own.
var ours = map[string]bool{
	"LISTEN_FDS": true, "LISTEN_PID": true, "LISTEN_FDNAMES": true, "LISTEN_PIDFDID": true,
	"NOTIFY_SOCKET": true, "NOTIFY_FD": true, "WATCHDOG_USEC": true, "WATCHDOG_PID": true,
}

// StripEnv returns the environment without the variables of all protocols, in order. They were meant for us; passed on
// they would make a program take descriptors that are not there, or speak for us to the init above.
func StripEnv(env []string) []string {
	var out []string
	for _, kv := range env {
		name, _, _ := strings.Cut(kv, "=")
		if !ours[name] && !strings.HasPrefix(name, "EINHORN_") && !strings.HasPrefix(name, "SERVER_STARTER_") {
			out = append(out, kv)
		}
	}
	return out
}

// Expand replaces {port} and {fd} (of the first internet address and the first socket), {port:name} and {fd:name}, {worker} and
// {generation} in a word of a command line. Anything else in braces stays as it is.
func (l *Lease) Expand(word string, gen, worker int) string {
	if !strings.Contains(word, "{") {
		return word
	}
	files := l.Files()
	var out strings.Builder
	for {
		before, rest, found := strings.Cut(word, "{")
		out.WriteString(before)
		if !found {
			return out.String()
		}
		inside, after, closed := strings.Cut(rest, "}")
		if value, ok := placeholder(inside, files, gen, worker); closed && ok {
			out.WriteString(value)
			word = after
			continue
		}
		out.WriteByte('{')
		word = rest
	}
}

// placeholder is the value of what stands between braces.
func placeholder(inside string, files []File, gen, worker int) (string, bool) {
	what, name, named := strings.Cut(inside, ":")
	switch {
	case what == "worker" && !named:
		return strconv.Itoa(worker), true
	case what == "generation" && !named:
		return strconv.Itoa(gen), true
	}
	for i, f := range files {
		switch {
		case named && f.Name != name:
		case what == "fd":
			return strconv.Itoa(firstInherited + i), true
		case what == "port" && f.Port > 0:
			return strconv.Itoa(f.Port), true
		}
	}
	return "", false
}
