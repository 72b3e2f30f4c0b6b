package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/hotswap-init/entrypoint/integration/engine"
	"github.com/hotswap-init/entrypoint/integration/load"
)

// generations is what one more living generation costs the init: memory, threads and descriptors, and what is left of
// it after ten more. The heap levels off at about a MiB more after some twenty swaps.
func (b *bench) generations() ([]line, error) {
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	const app = "/app/server"
	file := filepath.Join(filepath.Dir(b.binaries.TestApp), "bench-generation")
	if err := b.binaries.Stamp(file, "version=v0 linger=0s"); err != nil {
		return nil, err
	}
	c, err := b.engine.Start(b.ctx, engine.Spec{
		Env: []string{watched}, Command: []string{app, "listen=tcp:" + address}, Files: map[string]string{app: file},
	})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if err := b.answers(address); err != nil {
		return nil, fmt.Errorf("%w\n%s", err, c.Logs())
	}
	ctx, cancel := context.WithTimeout(b.ctx, 30*time.Second)
	defer cancel()
	swap := func(n int) error {
		l := load.Start(ctx, load.Options{Address: address, Fresh: 1, Pace: time.Millisecond})
		defer l.Stop()
		_, err := b.swapOnce(c, l, file, app, fmt.Sprint("v", n))
		return err
	}
	for n := range 3 { // what is only ever allocated once is there then
		if err := swap(n + 1); err != nil {
			return nil, err
		}
	}
	before := b.settled(c.PID())
	release, err := occupy(address)
	if err != nil {
		return nil, err
	}
	if err := swap(4); err != nil {
		release()
		return nil, err
	}
	both := b.settled(c.PID())
	release()
	for n := range 9 {
		if err := swap(n + 5); err != nil {
			return nil, err
		}
	}
	after := b.settled(c.PID())
	return []line{
		{"a second living generation", both.less(before), "one: " + before.String(), "-", "<= 1 MiB, 1 thread"},
		{"the init after ten swaps more", after.less(before), "before: " + before.String(), "-", "<= 1.5 MiB, none open"},
	}, nil
}

// occupy makes a request that keeps its generation alive until release.
func occupy(address string) (release func(), err error) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	_, err = conn.Write([]byte("GET /slow?ms=6000 HTTP/1.1\r\nHost: bench\r\n\r\n"))
	return func() { conn.Close() }, err
}

// settled is the footprint after the time in which the init gives memory back.
func (b *bench) settled(pid int) footprint {
	time.Sleep(3500 * time.Millisecond)
	return footprintOf(pid)
}

// footprint is what a process has; memory in KiB.
type footprint struct{ anonymous, resident, share, threads, descriptors int }

func footprintOf(pid int) (f footprint) {
	status := fmt.Sprintf("/proc/%d/status", pid)
	f.anonymous, f.resident = kib(status, "RssAnon"), kib(status, "VmRSS")
	f.share = kib(fmt.Sprintf("/proc/%d/smaps_rollup", pid), "Pss")
	f.threads = kib(status, "Threads")
	open, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	f.descriptors = len(open)
	return f
}

// kib is the number of a line such as `VmRSS: 123 kB`.
func kib(path, name string) int {
	text, _, _ := strings.Cut(field(path, name), " ")
	n, _ := strconv.Atoi(text)
	return n
}

func (f footprint) String() string {
	return fmt.Sprintf("%d KiB, %d threads, %d descriptors", f.anonymous, f.threads, f.descriptors)
}

func (f footprint) less(g footprint) string {
	return fmt.Sprintf("%+d KiB, %+d threads, %+d descriptors", f.anonymous-g.anonymous, f.threads-g.threads, f.descriptors-g.descriptors)
}
