package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/hotswap-init/entrypoint/integration/engine"
)

// unheld and watched are the environments of an init that leaves the app alone, and of one that watches what it binds, which is
// the default.
var (
	unheld  = "ENTRYPOINT_HANDOFF=none"
	watched = "ENTRYPOINT_HANDOFF=transparent"
)

// cost is one line of `testapp tool costs`, medians and 99th percentiles over all rounds.
type cost struct{ median, p99 []time.Duration }

// calls compares single system calls of an app that is watched with those of one that is not, in turns.
func (b *bench) calls() ([]line, error) {
	all := map[string]map[string]*cost{unheld: {}, watched: {}}
	for range 5 {
		for _, mode := range []string{unheld, watched} {
			if err := b.costs(mode, all[mode]); err != nil {
				return nil, err
			}
		}
	}
	var lines []line
	for _, row := range []struct{ name, what string }{
		{"bind", "bind, held"}, {"listen", "listen, held"}, {"free", "bind of port 0, looked at and left alone"}, {"tos", "setsockopt that is watched"},
		{"nodelay", "setsockopt that is not"}, {"getppid", "any other system call"},
	} {
		ours, theirs := all[watched][row.name], all[unheld][row.name]
		if ours == nil || theirs == nil {
			return nil, fmt.Errorf("no cost of %s", row.name)
		}
		a, c := median(ours.median), median(theirs.median)
		lines = append(lines, line{row.what, fmt.Sprintf("%s, p99 %s", ns(a), ns(median(ours.p99))), fmt.Sprintf("not watched %s, p99 %s", ns(c), ns(median(theirs.p99))), ratio(a, c), "-"})
	}
	return lines, nil
}

func ns(d time.Duration) string {
	if d >= 10*time.Microsecond {
		return us(d)
	}
	return fmt.Sprintf("%d ns", d.Nanoseconds())
}

// costs runs the tool once as the app of an init.
func (b *bench) costs(mode string, into map[string]*cost) error {
	address, err := freeAddress()
	if err != nil {
		return err
	}
	_, port, _ := strings.Cut(address, ":")
	cmd := b.withProc(mode, b.binaries.TestApp, "tool", "costs", port, strconv.Itoa(b.times(2000)))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("costs with %s: %w\n%s", mode, err, stderr.String())
	}
	for text := range strings.Lines(string(out)) {
		var name string
		var median, p99 time.Duration
		if _, err := fmt.Sscan(text, &name, &median, &p99); err != nil {
			return fmt.Errorf("%q: %w", text, err)
		}
		if into[name] == nil {
			into[name] = &cost{}
		}
		into[name].median, into[name].p99 = append(into[name].median, median), append(into[name].p99, p99)
	}
	return nil
}

// selfTested finds what the init says of its self-test in its status.
var selfTested = regexp.MustCompile(`self-test passed in ([0-9.]+ms)`)

// rehearsal reads how long the self-test at start took.
func (b *bench) rehearsal() ([]line, error) {
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	c, err := b.engine.Start(b.ctx, engine.Spec{Command: []string{"/testapp", "listen=tcp:" + address}})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if err := b.answers(address); err != nil {
		return nil, fmt.Errorf("%w\n%s", err, c.Logs())
	}
	for until := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		_, out, err := engine.Exec(b.ctx, c, "/entrypoint", "status", "--json")
		if found := selfTested.FindStringSubmatch(out); err == nil && found != nil {
			return []line{{"self-test of the transparent hand-off, after the app's start", found[1], "-", "-", "a few ms"}}, nil
		}
		if time.Now().After(until) {
			return nil, fmt.Errorf("status shows no self-test: %w: %s", err, out)
		}
	}
}

// starts is how much later an app says its first word when it is watched, and how much longer a container takes whose app ends
// at once, before the self-test begins.
func (b *bench) starts() ([]line, error) {
	const auto = "ENTRYPOINT_HANDOFF=auto"
	first, whole := map[string][]time.Duration{}, map[string][]time.Duration{}
	for range b.times(100) {
		for _, mode := range []string{unheld, auto} {
			f, w, err := firstWord(b.withProc(mode, "/bin/echo", "here"))
			if err != nil {
				return nil, err
			}
			first[mode], whole[mode] = append(first[mode], f), append(whole[mode], w)
		}
	}
	row := func(what string, took map[string][]time.Duration) line {
		a, n := median(took[auto]), median(took[unheld])
		return line{what, ms(a), "not watched " + ms(n), ratio(a, n), "<= 2 ms more"}
	}
	return []line{row("start until the app's first output, watched", first), row("container of an app that ends at once, watched", whole)}, nil
}

// firstWord runs a command and tells when its first line had come, and when it had ended.
func firstWord(cmd *exec.Cmd) (first, whole time.Duration, err error) {
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, 0, err
	}
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, 0, err
	}
	_, err = bufio.NewReader(out).ReadString('\n')
	first = time.Since(begin)
	if waited := cmd.Wait(); err == nil {
		err = waited
	}
	return first, time.Since(begin), err
}

// withProc prepares our init with an app as PID 1 of namespaces of its own, with a /proc of its own too: it looks at the app
// through that.
func (b *bench) withProc(mode string, app ...string) *exec.Cmd {
	argv := append([]string{"--pid", "--fork", "--mount-proc", "--kill-child", b.binaries.Entrypoint, "--"}, app...)
	cmd := exec.Command("unshare", argv...)
	cmd.Env = []string{"PATH=/usr/bin:/bin", "ENTRYPOINT_CONTROL=off", "ENTRYPOINT_LOG_LEVEL=error", mode}
	return cmd
}
