package main

import (
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// inherited are the descriptors this process was started with, and what they point
// to. They are read before anything of ours opens one; those of the Go runtime are
// close-on-exec and thereby told apart.
var inherited = readInherited()

// status holds the lines of /proc/self/status that tell how we were started. A Go
// program installs handlers and changes masks by itself; SigBlk and SigIgn are still
// worth a look.
var status = readStatus()

func readInherited() map[string]string {
	found := map[string]string{}
	for fd := range 1024 {
		flags, _, errno := syscall.RawSyscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_GETFD, 0)
		if errno != 0 || flags&syscall.FD_CLOEXEC != 0 {
			continue
		}
		name, _ := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
		found[strconv.Itoa(fd)] = name
	}
	return found
}

func readStatus() map[string]string {
	text, _ := os.ReadFile("/proc/self/status")
	lines := map[string]string{}
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		switch key {
		case "Name", "Umask", "Uid", "Gid", "Groups", "SigBlk", "SigIgn", "CapEff", "CapBnd", "NoNewPrivs", "Seccomp", "TracerPid":
			lines[key] = strings.TrimSpace(value)
		}
	}
	return lines
}

// sayReady sends READY=1 the way systemd wants it, else the way crank wants it; with
// neither variable set nobody wants to know.
func sayReady() error {
	if name := os.Getenv("NOTIFY_SOCKET"); name != "" {
		c, err := net.Dial("unixgram", name)
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write([]byte("READY=1\nSTATUS=serving"))
		return err
	}
	if number, err := strconv.Atoi(os.Getenv("NOTIFY_FD")); err == nil {
		_, err := syscall.Write(number, []byte("READY=1"))
		return err
	}
	return nil
}
