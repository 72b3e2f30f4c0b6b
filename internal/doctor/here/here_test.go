package here

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// tree makes files below a root for System.Root.
func tree(t *testing.T, files map[string]string) System {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return System{Root: root}
}

func wellTries() Tries {
	return Tries{Memfd: func() error { return nil }, Filter: func() (bool, error) { return false, nil }, Rehearse: func() error { return nil }, Steer: func() error { return nil }}
}

func wellAsked() Asked {
	return Asked{Handoff: "auto", Exec: "auto", Steer: true, Poll: 2 * time.Second, Subreaper: "auto", Timeout: 8 * time.Second}
}

const (
	mountsOne = "30 25 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n" +
		"31 30 0:27 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n" +
		"32 30 0:28 /docker/abc /sys/fs/cgroup/pids ro - cgroup cgroup rw,pids\n"
	groupsOne = "5:memory:/docker/abc\n4:pids:/docker/abc\n"
	mountsTwo = "31 30 0:27 / /sys/fs/cgroup ro - cgroup2 cgroup rw\n"
)

func TestControlGroups(t *testing.T) {
	const mib = "1048576"
	for name, c := range map[string]struct {
		files        map[string]string
		memory, pids string // state and a part of what was found
	}{
		"version 1, namespaced mount": {map[string]string{
			"proc/self/mountinfo": mountsOne, "proc/self/cgroup": groupsOne,
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "67108864\n", "sys/fs/cgroup/memory/memory.usage_in_bytes": "50331648\n",
			"sys/fs/cgroup/memory/memory.stat": "cache 1\ntotal_inactive_file 33554432\n",
			"sys/fs/cgroup/pids/pids.max":      "max\n",
		}, "works 16 MiB of 64 MiB in use (control group version 1)", "works no limit in the control group (version 1)"},
		"version 1, no limit": {map[string]string{
			"proc/self/mountinfo": mountsOne, "proc/self/cgroup": groupsOne,
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
			"sys/fs/cgroup/pids/pids.max":                "10\n", "sys/fs/cgroup/pids/pids.current": "6\n",
		}, "works no limit in the control group (version 1)", "limited 6 of 10 processes and threads (control group version 1): a swap runs two"},
		"version 2, own namespace": {map[string]string{
			"proc/self/mountinfo": mountsTwo, "proc/self/cgroup": "0::/\n",
			"sys/fs/cgroup/memory.max": "67108864\n", "sys/fs/cgroup/memory.current": "60000000\n", "sys/fs/cgroup/memory.stat": "inactive_file " + mib + "\n",
			"sys/fs/cgroup/pids.max": "100\n", "sys/fs/cgroup/pids.current": "7\n",
		}, "limited 56 MiB of 64 MiB in use (control group version 2): a swap runs two", "works 7 of 100 processes and threads (control group version 2)"},
		"version 2, the host's tree": {map[string]string{
			"proc/self/mountinfo": mountsTwo, "proc/self/cgroup": "0::/kubepods/x\n",
			"sys/fs/cgroup/kubepods/x/cgroup.procs": "1\n", "sys/fs/cgroup/kubepods/x/memory.max": "max\n", "sys/fs/cgroup/kubepods/x/pids.max": "9\n",
			"sys/fs/cgroup/kubepods/x/pids.current": "1\n",
		}, "works no limit in the control group (version 2)", "works 1 of 9 processes"},
		"hybrid: version 2 without controllers": {map[string]string{
			"proc/self/mountinfo": mountsTwo + mountsOne, "proc/self/cgroup": groupsOne + "0::/\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "67108864\n", "sys/fs/cgroup/memory/memory.usage_in_bytes": "1048576\n",
		}, "works 1 MiB of 64 MiB in use (control group version 1)", "works no control group of pids can be seen"},
		"none": {map[string]string{}, "works no control group of memory can be seen", "works no control group of pids can be seen"},
	} {
		e := &examination{System: tree(t, c.files), asked: wellAsked()}
		for _, r := range []struct {
			row  Row
			want string
		}{{e.memory(), c.memory}, {e.pids(), c.pids}} {
			if got := string(r.row.State) + " " + r.row.Found; !strings.HasPrefix(got, r.want) {
				t.Errorf("%s: %q, want %q", name, got, r.want)
			}
		}
	}
}

func TestRowsFromFiles(t *testing.T) {
	const status = "Uid:\t1000\t1000\t1000\t1000\nCapEff:\t0000000000000000\nNoNewPrivs:\t1\n"
	for name, c := range map[string]struct {
		files map[string]string
		asked func(*Asked)
		row   func(*examination) Row
		want  string
	}{
		"low port": {map[string]string{"proc/self/status": status, "proc/sys/net/ipv4/ip_unprivileged_port_start": "1024\n"},
			func(a *Asked) { a.Ports = []int{8080, 443} }, (*examination).ports, "fails ports from 1024 on are free to bind (net.ipv4.ip_unprivileged_port_start); ENTRYPOINT_LISTEN has port 443"},
		"low port is free":            {map[string]string{"proc/self/status": status, "proc/sys/net/ipv4/ip_unprivileged_port_start": "0\n"}, func(a *Asked) { a.Ports = []int{80} }, (*examination).ports, "works ports from 0 on"},
		"low port by capability":      {map[string]string{"proc/self/status": "CapEff:\t0000000000000400\n"}, func(a *Asked) { a.Ports = []int{80} }, (*examination).ports, "works CAP_NET_BIND_SERVICE is there"},
		"any port":                    {map[string]string{"proc/self/status": status}, func(a *Asked) { a.Ports = []int{0} }, (*examination).ports, "works ports from 1024 on"},
		"the init's rights, not ours": {map[string]string{"proc/self/status": status, "proc/7/status": "Uid:\t0\t0\t0\t0\nCapEff:\t00000000000000e1\n"}, nil, (*examination).capabilities, "works uid 0, capabilities: CHOWN KILL SETGID SETUID"},
		"another user":                {map[string]string{"proc/7/status": status}, func(a *Asked) { a.User = &ID{33, 33} }, (*examination).capabilities, "fails uid 1000, capabilities: none that matter here; ENTRYPOINT_USER wants uid 33, which cannot be become and signalled without KILL SETGID SETUID"},
		"the same user":               {map[string]string{"proc/7/status": status}, func(a *Asked) { a.User = &ID{1000, 1000} }, (*examination).capabilities, "works"},
		"short queue":                 {map[string]string{"proc/sys/net/core/somaxconn": "128\n"}, nil, (*examination).somaxconn, "limited at most 128 connections wait"},
		"backlog":                     {map[string]string{"proc/sys/net/core/somaxconn": "128\n"}, func(a *Asked) { a.Backlog = 100 }, (*examination).somaxconn, "works 128 connections"},
		"no proc":                     {nil, nil, (*examination).proc, "fails /proc is not mounted"},
		"shifted clock":               {map[string]string{"proc/self/timens_offsets": "monotonic 86400 0\nboottime 0 0\n"}, nil, func(e *examination) Row { r, _ := e.clock(); return r }, "works a time namespace shifts the monotonic clock by 86400s"},
	} {
		e := &examination{System: tree(t, c.files), asked: wellAsked()}
		e.Init = 7
		if c.asked != nil {
			c.asked(&e.asked)
		}
		r := c.row(e)
		if got := string(r.State) + " " + r.Found; !strings.HasPrefix(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
		if r.State != Works && r.Remedy == "" {
			t.Errorf("%s: no remedy", name)
		}
	}
	if _, relevant := (&examination{System: tree(t, map[string]string{"proc/self/timens_offsets": "monotonic 0 0\nboottime 0 0\n"})}).clock(); relevant {
		t.Error("a clock that is not shifted is told of")
	}
}

func TestGrace(t *testing.T) {
	for _, c := range []struct {
		grace, delay, timeout time.Duration
		want                  string
	}{
		{0, 0, 8 * time.Second, "works a stop takes at most 8s"},
		{10 * time.Second, 0, 8 * time.Second, "works a stop takes at most 8s: ENTRYPOINT_SHUTDOWN_TIMEOUT 8s, within ENTRYPOINT_GRACE 10s"},
		{10 * time.Second, 5 * time.Second, 8 * time.Second, "limited a stop takes at most 13s: ENTRYPOINT_SHUTDOWN_TIMEOUT 8s after ENTRYPOINT_SHUTDOWN_DELAY 5s; the container is killed after 10s"},
		{0, 5 * time.Second, 8 * time.Second, "limited a stop takes at most 13s: ENTRYPOINT_SHUTDOWN_TIMEOUT 8s after ENTRYPOINT_SHUTDOWN_DELAY 5s; ENTRYPOINT_GRACE is not set"},
	} {
		e := &examination{asked: Asked{Grace: c.grace, Delay: c.delay, Timeout: c.timeout}}
		if r := e.grace(); !strings.HasPrefix(string(r.State)+" "+r.Found, c.want) {
			t.Errorf("%v: %s %s", c, r.State, r.Found)
		}
	}
}

// What follows, and what fails, for each thing that does not work.
func TestWhatFollows(t *testing.T) {
	no := errors.New("no")
	for name, c := range map[string]struct {
		tries func(*Tries)
		asked func(*Asked)
		want  string // handoff, exec, steer and watch
		fails string
	}{
		"all well":     {nil, nil, "transparent|private copies in memory|each generation has a socket of its own|nothing is watched", ""},
		"watched":      {nil, func(a *Asked) { a.Watch = true }, "transparent|private copies in memory|each generation has a socket of its own|inotify, and a look every 2s", ""},
		"asked for":    {nil, func(a *Asked) { a.Handoff, a.Exec, a.Steer = "none", "path", false }, "none|the program's own file|all generations share one socket|nothing is watched", ""},
		"no filter":    {func(t *Tries) { t.Filter = func() (bool, error) { return false, no } }, func(a *Asked) { a.Held = 1 }, "inherit|", ""},
		"no rehearsal": {func(t *Tries) { t.Rehearse = func() error { return no } }, nil, "none|", ""},
		"must":         {func(t *Tries) { t.Rehearse = func() error { return no } }, func(a *Asked) { a.Handoff = "transparent" }, "the init does not start|", "seccomp"},
		"no memory":    {func(t *Tries) { t.Memfd = func() error { return no } }, nil, "transparent|the program's own file|", ""},
		"no copy":      {func(t *Tries) { t.Memfd = func() error { return no } }, func(a *Asked) { a.Exec = "copy" }, "transparent|no program is accepted|", "memfd"},
		"state dir":    {func(t *Tries) { t.StateDir = func() error { return nil } }, func(a *Asked) { a.StateDir = "/s" }, `transparent|private copies below "/s"|`, ""},
		"no state dir": {func(t *Tries) { t.StateDir = func() error { return no } }, func(a *Asked) { a.StateDir = "/s" }, "transparent|private copies in memory|", "state dir"},
		"no steering":  {func(t *Tries) { t.Steer = func() error { return no } }, nil, "transparent|private copies in memory|all generations share one socket|", ""},
		"no canary":    {func(t *Tries) { t.Steer = func() error { return no } }, func(a *Asked) { a.Canary = true }, "", "steering"},
		"nothing held": {nil, func(a *Asked) { a.Handoff = "inherit" }, "none|", ""},
		"exclusive":    {nil, func(a *Asked) { a.Handoff = "exclusive" }, "exclusive|", ""},
	} {
		tries, asked := wellTries(), wellAsked()
		if c.tries != nil {
			c.tries(&tries)
		}
		if c.asked != nil {
			c.asked(&asked)
		}
		r := Examine(System{}, asked, tries)
		var values []string
		for _, choice := range r.Follows {
			values = append(values, choice.Value)
		}
		if got := strings.Join(values, "|"); !strings.HasPrefix(got, c.want) {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
		for _, row := range r.Rows {
			if (row.State == Fails) != (row.Name == c.fails) {
				t.Errorf("%s: %s %s: %s", name, row.Name, row.State, row.Found)
			}
		}
	}
}

// Nothing is left behind.
func TestLeavesNothing(t *testing.T) {
	count := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	Examine(System{}, wellAsked(), wellTries()) // what the runtime opens once
	before := count()
	took := time.Hour
	for range 3 { // the machine may have a busy second, hardly three
		began := time.Now()
		Examine(System{}, wellAsked(), wellTries())
		took = min(took, time.Since(began))
	}
	if after := count(); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
	if took > time.Second {
		t.Errorf("it took %v", took)
	}
}
