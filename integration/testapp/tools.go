package main

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

// tool runs one of the small commands that a scratch image lacks: mv, rm, sleep,
// cat, true, exit, orphans, pong, costs, and enter, by which the unshare back end makes a
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
	case "enter":
		err = enter(args)
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
