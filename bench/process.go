package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
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

// Names of the inits. noInit is the app itself as PID 1.
const (
	noInit = "no init"
	bareGo = "bare Go"
	mine   = "entrypoint"
	tini   = "tini"
)

// inits are the app itself, the yardsticks that are installed, and ours.
func (b *bench) inits() []initCommand {
	all := []initCommand{{noInit, nil}}
	for _, argv := range [][]string{{tini, "--"}, {"dumb-init", "--"}, {"catatonit", "--"}} {
		if path, err := exec.LookPath(argv[0]); err == nil {
			all = append(all, initCommand{argv[0], append([]string{path}, argv[1:]...)})
		}
	}
	return append(all, initCommand{bareGo, []string{b.bare}}, initCommand{mine, []string{b.binaries.Entrypoint, "--"}})
}

// inNamespace prepares INIT APP… as PID 1 of fresh PID and mount namespaces.
func inNamespace(i initCommand, app ...string) *exec.Cmd {
	argv := append(slices.Clone(i.argv), app...)
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = []string{"PATH=/usr/bin:/bin", "ENTRYPOINT_HANDOFF=none", "ENTRYPOINT_CONTROL=off", "ENTRYPOINT_LOG_LEVEL=error"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	return cmd
}

// withOwnProc prepares the same with a /proc of its own, as a container has it: else nothing would be watched.
func withOwnProc(i initCommand, app ...string) *exec.Cmd {
	mounting := []string{"/bin/sh", "-c", `mount --make-rprivate / && mount -t proc proc /proc && exec "$@"`, "sh"}
	return inNamespace(initCommand{i.name, append(mounting, i.argv...)}, app...)
}

func median(d []time.Duration) time.Duration {
	if len(d) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(d))
	return sorted[len(sorted)/2]
}

func ms(d time.Duration) string { return fmt.Sprintf("%.2f ms", float64(d.Microseconds())/1000) }
func us(d time.Duration) string { return fmt.Sprintf("%d us", d.Microseconds()) }

func ratio(a, b time.Duration) string {
	if b <= 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", float64(a)/float64(b))
}

// beside writes the numbers of all inits as one row: ours, each other's, and the ratio to tini. what is its text.
func beside(what, unit, budget string, numbers map[string][]float64) line {
	var others []string
	for _, name := range []string{tini, "dumb-init", "catatonit", bareGo} {
		text := "not installed"
		if len(numbers[name]) > 0 {
			text = figureOf(numbers[name]).text(unit)
		}
		others = append(others, name+" "+text)
	}
	l := line{what, figureOf(numbers[mine]).text(unit), strings.Join(others, ", "), "-", budget}
	var ratios []string
	for _, name := range []string{tini, bareGo} {
		theirs := figureOf(numbers[name])
		if theirs.value > 0 {
			ratios = append(ratios, name+" "+number(figureOf(numbers[mine]).value/theirs.value))
		}
	}
	if len(ratios) > 0 {
		l.ratio = strings.Join(ratios, ", ")
	}
	return l
}

// beyond is what each init takes more than the app without one, round by round.
func beyond(took map[string][]time.Duration, unit time.Duration) map[string][]float64 {
	out := map[string][]float64{}
	for name := range took {
		if name != noInit {
			out[name] = pairs(in(unit, took[name]), in(unit, took[noInit]), less)
		}
	}
	return out
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
	more := beyond(took, time.Millisecond)
	b.judge("start", "", figureOf(more[mine]))
	return []line{beside("start overhead as PID 1", "ms", "<= 4.5 ms", more)}, nil
}

// forward is the time from kill(2) on the init to the app's answer, less what the
// same app needs when it is signalled itself. All are up, and asked in turns.
func (b *bench) forward() ([]line, error) {
	took := map[string][]time.Duration{}
	asked := map[string]*ponger{}
	for _, i := range b.inits() {
		p, err := b.startPong(i)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", i.name, err)
		}
		defer p.stop()
		asked[i.name] = p
	}
	for range b.times(1000) {
		for name, p := range asked {
			d, err := p.ping()
			if err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			took[name] = append(took[name], d)
		}
	}
	more := beyond(took, time.Microsecond)
	b.judge("forward", "", figureOf(more[mine]))
	return []line{beside("signal forwarded, median", "us", "<= 200 us", more)}, nil
}

// ponger is an init whose app writes a line for every USR1.
type ponger struct {
	cmd   *exec.Cmd
	lines *bufio.Reader
}

func (b *bench) startPong(i initCommand) (*ponger, error) {
	cmd := inNamespace(i, b.binaries.TestApp, "tool", "pong")
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &ponger{cmd, bufio.NewReader(out)}
	if _, err := p.lines.ReadString('\n'); err != nil {
		p.stop()
		return nil, err
	}
	return p, nil
}

// ping waits a little first: signals come one at a time, to processes that sleep.
func (p *ponger) ping() (time.Duration, error) {
	time.Sleep(500 * time.Microsecond)
	begin := time.Now()
	if err := p.cmd.Process.Signal(syscall.SIGUSR1); err != nil {
		return 0, err
	}
	_, err := p.lines.ReadString('\n')
	return time.Since(begin), err
}

func (p *ponger) stop() {
	p.cmd.Process.Kill()
	p.cmd.Wait()
}

// orphanScript makes many orphans that wait for a pipe to close, and closes it on USR1.
const orphanScript = `
pipe R, W; $| = 1;
if (!fork) { close W; for (1..$ARGV[0]) { if (!fork) { sysread R, my $x, 1; exit } } exit }
wait; close R; $SIG{USR1} = sub { close W }; print "ready\n"; sleep 60 while 1;`

// orphans is the time that an init needs for very many that die at once.
func (b *bench) orphans() ([]line, error) {
	n := b.times(20000)
	took := map[string][]float64{}
rounds:
	for range 3 { // a round takes a minute
		for _, i := range b.inits() {
			if i.name == noInit {
				continue
			}
			d, err := b.burst(i, n)
			if b.ctx.Err() != nil && len(took[mine]) > 1 {
				break rounds // what was measured is enough
			}
			if err != nil {
				return nil, fmt.Errorf("%s: %w", i.name, err)
			}
			took[i.name] = append(took[i.name], float64(d)/float64(time.Millisecond))
		}
	}
	if len(took[tini]) > 0 {
		b.judge("orphans", sizeOf(n, 20000, "orphans"), figureOf(pairs(took[mine], took[tini], over)))
	}
	return []line{beside(fmt.Sprintf("%d orphans released at once", n), "ms", "<= 1.0 of tini", took)}, nil
}

// sizeOf labels a number that was measured with less work than the budget is about.
func sizeOf(n, full int, what string) string {
	if n >= full {
		return ""
	}
	return fmt.Sprintf("with %d %s", n, what)
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
		if time.Since(begin) > time.Minute || b.ctx.Err() != nil {
			return 0, fmt.Errorf("%d orphans are left after %v", countChildren(cmd.Process.Pid), time.Since(begin))
		}
		time.Sleep(2 * time.Millisecond)
	}
	return time.Since(begin), nil
}

func countChildren(pid int) int { return len(children(pid)) }

// children are those of all threads of a process: the kernel counts them by the thread that forked.
func children(pid int) (all []int) {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, task := range tasks {
		text, _ := os.ReadFile(task)
		for _, word := range strings.Fields(string(text)) {
			if child, err := strconv.Atoi(word); err == nil {
				all = append(all, child)
			}
		}
	}
	return all
}

// idle is the memory of inits whose app sleeps, and how often they wake up: all of them in the same time.
func (b *bench) idle() ([]line, error) {
	running := map[string]int{}
	for _, i := range b.inits() {
		if i.name == noInit {
			continue
		}
		cmd := withOwnProc(i, "/bin/sleep", "100")
		cmd.Env = []string{"PATH=/usr/bin:/bin", "ENTRYPOINT_LISTEN=tcp://127.0.0.1:0", "ENTRYPOINT_READY=delay:10ms", "ENTRYPOINT_LOG_LEVEL=error"}
		if err := cmd.Start(); err != nil {
			return nil, err
		}
		defer cmd.Wait()
		defer cmd.Process.Kill()
		running[i.name] = cmd.Process.Pid
	}
	time.Sleep(settling)
	before := map[string]int{}
	for name, pid := range running {
		before[name] = wakeups(pid)
	}
	time.Sleep(b.idleTime())
	numbers := map[string]map[string][]float64{}
	for _, what := range []string{"wakeups", "resident", "share", "threads", "open"} {
		numbers[what] = map[string][]float64{}
	}
	for name, pid := range running {
		f := footprintOf(pid)
		numbers["wakeups"][name] = []float64{float64(wakeups(pid) - before[name])}
		numbers["resident"][name] = []float64{float64(f.resident) / 1024}
		numbers["share"][name] = []float64{float64(f.share) / 1024}
		numbers["threads"][name] = []float64{float64(f.threads)}
		numbers["open"][name] = []float64{float64(f.descriptors)}
	}
	b.judge("idle-memory", "", figureOf(numbers["resident"][mine]))
	b.judge("idle-wakeups", "in "+b.idleTime().String(), figureOf(numbers["wakeups"][mine]))
	return []line{
		beside("idle: resident memory (RSS), one socket held", "MiB", "<= 6 MiB", numbers["resident"]),
		beside("idle: proportional share of it (PSS)", "MiB", "-", numbers["share"]),
		beside("idle: wakeups in "+b.idleTime().String(), "", "0", numbers["wakeups"]),
		beside("idle: threads", "", "-", numbers["threads"]),
		beside("idle: descriptors", "", "-", numbers["open"]),
	}, nil
}

func (b *bench) idleTime() time.Duration {
	if b.quick {
		return 5 * time.Second
	}
	return 30 * time.Second
}

// settling is how long after its start an init is left alone: it gives memory back once nothing has changed for two seconds.
const settling = 5 * time.Second

// wakeups adds up how often the threads of a process have gone to sleep of their own accord.
func wakeups(pid int) (n int) {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	for _, task := range tasks {
		more, _ := strconv.Atoi(field(task, "voluntary_ctxt_switches"))
		n += more
	}
	return n
}

// size is that of the files on disk.
func (b *bench) size() ([]line, error) {
	sizes := map[string][]float64{}
	for _, i := range b.inits() {
		if i.name == noInit {
			continue
		}
		info, err := os.Stat(i.argv[0])
		if err != nil {
			return nil, err
		}
		sizes[i.name] = []float64{float64(info.Size()) / (1 << 20)}
	}
	b.judge("size", "", figureOf(sizes[mine]))
	return []line{beside("file", "MiB", "<= 10 MiB", sizes)}, nil
}

// catchScript counts every signal but that of a child's end while it keeps its init busy with orphans, and at last writes what came.
const catchScript = `
my %n; $| = 1;
for my $s (qw(HUP INT QUIT ILL TRAP ABRT BUS FPE USR1 SEGV USR2 PIPE ALRM TERM STKFLT CONT TSTP TTIN TTOU URG XCPU XFSZ VTALRM PROF WINCH IO PWR SYS)) {
	$SIG{$s} = sub { $n{$_[0]}++ };
}
my $end = time + $ARGV[0];
while (time < $end) { my $p = fork; if (!$p) { for (1..20) { fork or exit } exit } waitpid $p, 0; }
print join(" ", map { "$_=$n{$_}" } sort keys %n), "\n";`

// spurious counts signals that nobody sent, while orphans by the thousand are reaped and questions are answered.
func (b *bench) spurious() ([]line, error) {
	numbers := map[string][]float64{}
	kinds := ""
	for _, i := range b.inits() {
		if i.name == noInit {
			continue
		}
		got, err := b.caught(i)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", i.name, err)
		}
		n := 0
		for _, word := range strings.Fields(got) {
			_, text, _ := strings.Cut(word, "=")
			more, _ := strconv.Atoi(text)
			n += more
		}
		numbers[i.name] = []float64{float64(n)}
		if i.name == mine {
			kinds = got
		}
	}
	label := "in " + b.catchTime().String()
	if kinds != "" {
		label += ": " + kinds
	}
	b.judge("spurious", label, figureOf(numbers[mine]))
	return []line{beside("signals that nobody sent, under load", "", "0", numbers)}, nil
}

func (b *bench) catchTime() time.Duration {
	if b.quick {
		return 2 * time.Second
	}
	return 8 * time.Second
}

// caught runs the script below an init. Ours is asked all the time meanwhile.
func (b *bench) caught(i initCommand) (string, error) {
	cmd := withOwnProc(i, "/usr/bin/perl", "-e", catchScript, strconv.Itoa(int(b.catchTime().Seconds())))
	cmd.Env = []string{"PATH=/usr/bin:/bin", "ENTRYPOINT_LOG_LEVEL=error", "ENTRYPOINT_READY=delay:10ms"}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", err
	}
	if err := cmd.Start(); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(b.ctx, b.catchTime())
	defer cancel()
	asked := i.name != mine
	for i.name == mine && ctx.Err() == nil {
		err := nsenter(ctx, cmd.Process.Pid, b.tools, "ask", "50").Run() // fails until the init is up, and when the time is over
		asked = asked || err == nil
	}
	text, err := io.ReadAll(out)
	if waited := cmd.Wait(); err == nil {
		err = waited
	}
	if err == nil && !asked {
		err = errors.New("the init was not asked anything meanwhile")
	}
	return strings.TrimSpace(string(text)), err
}

// nsenter prepares a command in the namespaces of an init.
func nsenter(ctx context.Context, pid int, argv ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "nsenter", append([]string{"-t", strconv.Itoa(pid), "-m", "-p", "--"}, argv...)...)
}
