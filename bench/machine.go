package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// describe says what the numbers were measured on. loads are the load averages before and after.
func describe(loads [2]string) [][2]string {
	var limit syscall.Rlimit
	_ = syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) // 0 says that it is not known
	return [][2]string{
		{"measured", time.Now().UTC().Format("2006-01-02")},
		{"revision", said("git", "describe", "--always", "--dirty")},
		{"processors", fmt.Sprintf("%d, %s", runtime.NumCPU(), field("/proc/cpuinfo", "model name"))},
		{"memory", memory()},
		{"kernel", strings.TrimSpace(read("/proc/sys/kernel/ostype") + " " + strings.Fields(read("/proc/sys/kernel/osrelease") + " ?")[0])},
		{"Go", strings.TrimPrefix(runtime.Version(), "go")},
		{"open files, hard limit of a process", fmt.Sprint(limit.Max)},
		{"load average before, and after", loads[0] + "; " + loads[1] + " (1, 5 and 15 minutes)"},
		{"yardsticks", strings.Join(yardsticks(), ", ")},
	}
}

// yardsticks are the versions of what ours is measured beside.
func yardsticks() (out []string) {
	for _, name := range []string{"tini", "dumb-init", "catatonit", "haproxy", "nginx"} {
		version := said("dpkg-query", "-W", "-f", "${Version}", name)
		if _, err := exec.LookPath(name); err != nil {
			version = "not installed"
		}
		out = append(out, strings.TrimSpace(name+" "+version))
	}
	return out
}

// said is the first line that a program says; "" if it cannot be run.
func said(name string, words ...string) string {
	out, err := exec.Command(name, words...).Output()
	if err != nil {
		return ""
	}
	first, _, _ := strings.Cut(string(out), "\n")
	return strings.TrimSpace(first)
}

func read(path string) string {
	text, _ := os.ReadFile(path)
	return strings.TrimSpace(string(text))
}

// field is the value of the first line `NAME : value`.
func field(path, name string) string {
	for row := range strings.Lines(read(path)) {
		if key, value, ok := strings.Cut(row, ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}

func memory() string {
	var kib float64
	if _, err := fmt.Sscan(field("/proc/meminfo", "MemTotal"), &kib); err != nil {
		return "unknown"
	}
	return number(kib/(1<<20)) + " GiB"
}

// loadAverage is that of the last 1, 5 and 15 minutes.
func loadAverage() string {
	fields := strings.Fields(read("/proc/loadavg"))
	return strings.Join(fields[:min(3, len(fields))], " ")
}
