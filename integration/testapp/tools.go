package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// tool runs one of the small commands that a scratch image lacks: mv, rm, sleep,
// cat, true, exit, orphans, pong, costs, puts, lines, hold, cover, hide, uncover,
// limit, forge, flood, and enter, by which the unshare back end makes a
// container of a folder.
func tool(name string, args []string) int {
	err := error(nil)
	switch name {
	case "true":
	case "exit":
		code, _ := strconv.Atoi(args[0])
		return die(code)
	case "mv":
		err = os.Rename(args[0], args[1])
	case "rm":
		err = os.RemoveAll(args[0])
	case "cat":
		err = cat(args[0])
	case "sleep":
		err = sleep(args[0])
	case "orphans":
		err = startSleepers(args[0], args[1])
	case "pong":
		pong()
	case "costs":
		n, _ := strconv.Atoi(args[1])
		err = costs(args[0], n)
	case "puts":
		n, _ := strconv.Atoi(args[0])
		err = puts(n, args[1])
	case "enter":
		err = enter(args)
	case "lines":
		n, _ := strconv.Atoi(args[0])
		rate, _ := strconv.Atoi(args[1])
		err = lines(n, rate)
	case "hold":
		err = hold(args[0], false)
	case "cover":
		err = mountTmpfs(args[0], "")
	case "hide":
		err = unix.Mount("proc", args[0], "proc", unix.MS_REMOUNT, "hidepid=2")
	case "uncover":
		err = unix.Unmount(args[0], unix.MNT_DETACH)
	case "limit":
		err = limit(args)
	case "forge":
		err = forge(args[0], args[1])
	case "flood":
		n, _ := strconv.Atoi(args[0])
		err = flood(n)
	case "notified":
		err = notified(args)
	default:
		err = fmt.Errorf("no tool %q", name)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "testapp tool:", err)
		return 1
	}
	return 0
}

// lines prints n numbered lines, rate of them a second, says how long that took, and stays. While nobody takes them time stands still:
// what was held up does not come in a heap after that.
func lines(n, rate int) error {
	began := time.Now()
	due := began
	var batch []byte
	for i := range n {
		batch = fmt.Appendf(batch, "line %d of %d: the quick brown fox jumps over the lazy dog\n", i, n)
		if i%1000 == 999 || i == n-1 {
			if _, err := os.Stdout.Write(batch); err != nil {
				return err
			}
			batch = batch[:0]
			next := due.Add(time.Duration(i+1) * time.Second / time.Duration(rate))
			if late := time.Since(next); late > 100*time.Millisecond {
				due = due.Add(late)
			}
			time.Sleep(time.Until(next))
		}
	}
	fmt.Fprintf(os.Stderr, "took %v\n", time.Since(began))
	return sleep("1h")
}

func cat(name string) error {
	text, err := os.ReadFile(name)
	os.Stdout.Write(text)
	return err
}

// pong writes a line for every USR1; the first line says that it is ready.
func pong() {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1)
	for {
		os.Stdout.WriteString("pong\n")
		<-signals
	}
}

func sleep(text string) error {
	d, err := time.ParseDuration(text)
	time.Sleep(d)
	return err
}

// startSleepers starts n sleepers in groups of their own and leaves them: whoever
// called us loses sight of them as soon as we exit.
func startSleepers(n, life string) error {
	count, err := strconv.Atoi(n)
	if err != nil {
		return err
	}
	for range count {
		c := exec.Command("/proc/self/exe", "tool", "sleep", life)
		c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		if err := c.Start(); err != nil {
			return err
		}
	}
	return nil
}

// puts uploads n programs to the init, each with a version and settings of its own, waits until the one before has ended, and stops at
// the first that is refused.
func puts(n int, settings string) error {
	own, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return err
	}
	for i := range n {
		put := exec.Command("/entrypoint", "put", "--keep-file", "--wait", "drained")
		put.Stdin = io.MultiReader(bytes.NewReader(own), strings.NewReader(fmt.Sprintf("%sversion=p%d %s", trailerMark, i, settings)))
		if out, err := put.CombinedOutput(); err != nil {
			return fmt.Errorf("put %d: %w: %s", i, err, out)
		}
	}
	return nil
}

// forge says READY=1 to the notify socket of another process, n times, as nobody: of the app's own user the last words of a
// process that has ended meanwhile would be taken.
func forge(pid, n string) error {
	text, err := os.ReadFile("/proc/" + pid + "/environ")
	if err != nil {
		return err
	}
	count, err := strconv.Atoi(n)
	if err != nil {
		return err
	}
	for pair := range strings.SplitSeq(string(text), "\x00") {
		name, ok := strings.CutPrefix(pair, "NOTIFY_SOCKET=")
		if !ok {
			continue
		}
		if err := syscall.Setuid(65534); err != nil {
			return err
		}
		c, err := net.Dial("unixgram", name)
		if err != nil {
			return err
		}
		defer c.Close()
		for range count {
			if _, err := c.Write([]byte("READY=1\nSTATUS=forged")); err != nil {
				return err
			}
		}
		return nil
	}
	return fmt.Errorf("process %s has no NOTIFY_SOCKET", pid)
}

// flood has n clients at the control socket that say nothing, half a request, or nonsense without end, and returns when all were sent away.
func flood(n int) error {
	space, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		return err
	}
	name := "@entrypoint/" + strings.Trim(space, "mnt:[]") + "/1"
	ended := make(chan error, n)
	for i := range n {
		go func() {
			c, err := net.Dial("unix", name)
			if err != nil {
				ended <- err
				return
			}
			defer c.Close()
			text := []string{"", `{"version":1,"op":"rel`, strings.Repeat("x", 200<<10), "{}\n"}[i%4]
			_, _ = io.WriteString(c, text) // it may have had enough before the end
			_, _ = io.Copy(io.Discard, c)
			ended <- nil
		}()
	}
	for range n {
		if err := <-ended; err != nil {
			return err
		}
	}
	return nil
}

// limit changes the soft limit of a process: PID RESOURCE NUMBER; "max" is the hard one.
func limit(args []string) error {
	pid, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	resource, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	var now unix.Rlimit
	if err := unix.Prlimit(pid, resource, nil, &now); err != nil {
		return err
	}
	now.Cur = now.Max
	if args[2] != "max" {
		if now.Cur, err = strconv.ParseUint(args[2], 10, 64); err != nil {
			return err
		}
	}
	return unix.Prlimit(pid, resource, &now, nil)
}
