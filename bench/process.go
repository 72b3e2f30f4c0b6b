package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// initCommand is a program to be PID 1, with the words before the app.
type initCommand struct {
	name string
	argv []string
}

// inits are bare (the app itself), the yardsticks that are installed, and ours.
func (b *bench) inits() []initCommand {
	all := []initCommand{{"bare", nil}}
	for name, argv := range map[string][]string{"tini": {"tini", "--"}, "dumb-init": {"dumb-init", "--"}} {
		if path, err := exec.LookPath(argv[0]); err == nil {
			all = append(all, initCommand{name, append([]string{path}, argv[1:]...)})
		}
	}
	return append(all, initCommand{"entrypoint", []string{b.binaries.Entrypoint, "--"}})
}

// inNamespace prepares INIT APP… as PID 1 of fresh PID and mount namespaces.
func inNamespace(i initCommand, app ...string) *exec.Cmd {
	argv := append(slices.Clone(i.argv), app...)
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = []string{"PATH=/usr/bin:/bin", "ENTRYPOINT_HANDOFF=none", "ENTRYPOINT_CONTROL=off", "ENTRYPOINT_LOG_LEVEL=error"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	return cmd
}

func median(d []time.Duration) time.Duration {
	if len(d) == 0 {
		return 0
	}
	slices.Sort(d)
	return d[len(d)/2]
}

func ms(d time.Duration) string { return fmt.Sprintf("%.2f ms", float64(d.Microseconds())/1000) }
func us(d time.Duration) string { return fmt.Sprintf("%d us", d.Microseconds()) }

func ratio(a, b time.Duration) string {
	if b <= 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", float64(a)/float64(b))
}

// start is how much longer an app that ends at once takes under each init, rounds
// interleaved.
func (b *bench) start() ([]line, error) {
	took := map[string][]time.Duration{}
	for range b.times(200) {
		for _, i := range b.inits() {
			begin := time.Now()
			if err := inNamespace(i, "/bin/true").Run(); err != nil {
				return nil, fmt.Errorf("%s /bin/true: %w", i.name, err)
			}
			took[i.name] = append(took[i.name], time.Since(begin))
		}
	}
	over := func(name string) time.Duration { return median(took[name]) - median(took["bare"]) }
	return []line{{
		"start overhead as PID 1", ms(over("entrypoint")), "tini " + ms(over("tini")) + ", dumb-init " + ms(over("dumb-init")),
		ratio(over("entrypoint"), over("tini")), "<= 4.5 ms",
	}}, nil
}

// forward is the time from kill(2) on the init to the app's answer, less what the
// same app needs when it is signalled itself.
func (b *bench) forward() ([]line, error) {
	took := map[string]time.Duration{}
	for _, i := range b.inits() {
		d, err := b.pingPong(i)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", i.name, err)
		}
		took[i.name] = d
	}
	over := func(name string) time.Duration { return took[name] - took["bare"] }
	return []line{{
		"signal forwarded, median", us(over("entrypoint")), "tini " + us(over("tini")), ratio(over("entrypoint"), over("tini")), "<= 200 us",
	}}, nil
}

// pingPong sends USR1 and waits for the line that the app writes on it.
func (b *bench) pingPong(i initCommand) (time.Duration, error) {
	cmd := inNamespace(i, b.binaries.TestApp, "tool", "pong")
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	lines := bufio.NewReader(out)
	if _, err := lines.ReadString('\n'); err != nil {
		return 0, err
	}
	var took []time.Duration
	for range b.times(1000) {
		begin := time.Now()
		if err := cmd.Process.Signal(syscall.SIGUSR1); err != nil {
			return 0, err
		}
		if _, err := lines.ReadString('\n'); err != nil {
			return 0, err
		}
		took = append(took, time.Since(begin))
		time.Sleep(time.Millisecond)
	}
	return median(took), nil
}

// orphanScript makes many orphans that wait for a pipe to close, and closes it on USR1.
const orphanScript = `
pipe R, W; $| = 1;
if (!fork) { close W; for (1..$ARGV[0]) { if (!fork) { sysread R, my $x, 1; exit } } exit }
wait; close R; $SIG{USR1} = sub { close W }; print "ready\n"; sleep 60 while 1;`

// orphans is the time that an init needs for very many that die at once.
func (b *bench) orphans() ([]line, error) {
	n := b.times(20000)
	took := map[string][]time.Duration{}
	for range 3 {
		for _, i := range b.inits() {
			if i.name != "tini" && i.name != "entrypoint" {
				continue
			}
			d, err := b.burst(i, n)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", i.name, err)
			}
			took[i.name] = append(took[i.name], d)
		}
	}
	ours, theirs := median(took["entrypoint"]), median(took["tini"])
	return []line{{fmt.Sprintf("%d orphans released at once", n), ms(ours), "tini " + ms(theirs), ratio(ours, theirs), "<= 1.0"}}, nil
}

func (b *bench) burst(i initCommand, n int) (time.Duration, error) {
	cmd := inNamespace(i, "/usr/bin/perl", "-e", orphanScript, strconv.Itoa(n))
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		return 0, err
	}
	begin := time.Now()
	if err := cmd.Process.Signal(syscall.SIGUSR1); err != nil {
		return 0, err
	}
	for countChildren(cmd.Process.Pid) > 1 {
		if time.Since(begin) > time.Minute {
			return 0, fmt.Errorf("%d orphans are left after a minute", countChildren(cmd.Process.Pid))
		}
		time.Sleep(2 * time.Millisecond)
	}
	return time.Since(begin), nil
}

func countChildren(pid int) int {
	n := 0
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, task := range tasks {
		text, _ := os.ReadFile(task)
		n += strings.Count(string(text), " ")
	}
	return n
}

// idle is the memory of an init whose app sleeps, and how often it wakes up.
func (b *bench) idle() ([]line, error) {
	var values [2]string
	for _, i := range b.inits() {
		rss, wakeups, err := b.watchIdle(i)
		if err != nil {
			return nil, err
		}
		text := fmt.Sprintf("%.1f MiB, %d in %v", float64(rss)/1024, wakeups, b.idleTime())
		switch i.name {
		case "entrypoint":
			values[0] = text
		case "tini":
			values[1] = "tini " + text
		}
	}
	return []line{{"idle: RSS, wakeups", values[0], values[1], "-", "<= 6 MiB, 0"}}, nil
}

func (b *bench) idleTime() time.Duration {
	if b.quick {
		return 2 * time.Second
	}
	return 10 * time.Second
}

// settling is how long after its start an init is left alone: it gives memory back once nothing has changed for two seconds.
const settling = 5 * time.Second

func (b *bench) watchIdle(i initCommand) (rssKiB, wakeups int, err error) {
	if i.name == "bare" || i.name == "dumb-init" {
		return 0, 0, nil
	}
	// With a /proc of its own, as a container has it: else nothing would be watched.
	cmd := inNamespace(initCommand{argv: append([]string{"/bin/sh", "-c", `mount --make-rprivate / && mount -t proc proc /proc && exec "$@"`, "sh"}, i.argv...)}, "/bin/sleep", "100")
	cmd.Env = []string{"PATH=/usr/bin:/bin", "ENTRYPOINT_LISTEN=tcp://127.0.0.1:0", "ENTRYPOINT_READY=delay:10ms", "ENTRYPOINT_LOG_LEVEL=error"}
	if err := cmd.Start(); err != nil {
		return 0, 0, err
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	time.Sleep(settling)
	_, before := processStatus(cmd.Process.Pid)
	time.Sleep(b.idleTime())
	rss, after := processStatus(cmd.Process.Pid)
	return rss, after - before, nil
}

// processStatus adds up the voluntary switches of all threads.
func processStatus(pid int) (rssKiB, switches int) {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	for _, task := range tasks {
		text, _ := os.ReadFile(task)
		for line := range strings.Lines(string(text)) {
			fields := strings.Fields(line)
			if len(fields) < 2 {
				continue
			}
			number, _ := strconv.Atoi(fields[1])
			switch fields[0] {
			case "VmRSS:":
				rssKiB = number
			case "voluntary_ctxt_switches:":
				switches += number
			}
		}
	}
	return rssKiB, switches
}
