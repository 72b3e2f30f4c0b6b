package main

import (
	"fmt"
	"slices"
	"strconv"
	"syscall"
	"time"
)

// costs measures single system calls of this process: bind and listen at a port n times, each
// on a fresh socket, bind of port 0, and some calls in a loop. It prints a line of numbers for each:
// name, median and 99th percentile in nanoseconds.
func costs(address string, n int) error {
	port, err := strconv.Atoi(address)
	if err != nil {
		return err
	}
	var binds, listens []time.Duration
	for range n {
		b, l, err := bindOnce(port)
		if err != nil {
			return err
		}
		binds, listens = append(binds, b), append(listens, l)
	}
	report("bind", binds)
	report("listen", listens)
	var free []time.Duration
	for range n {
		b, _, err := bindOnce(0)
		if err != nil {
			return err
		}
		free = append(free, b)
	}
	report("free", free)
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	defer syscall.Close(fd)
	report("getppid", repeat(n, func() { syscall.Getppid() }))
	report("nodelay", repeat(n, func() { syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1) }))
	report("tos", repeat(n, func() { syscall.SetsockoptInt(fd, syscall.IPPROTO_IP, syscall.IP_TOS, 0) }))
	return nil
}

func bindOnce(port int) (bind, listen time.Duration, err error) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		return 0, 0, err
	}
	defer syscall.Close(fd)
	if err := syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); err != nil {
		return 0, 0, err
	}
	begin := time.Now()
	err = syscall.Bind(fd, &syscall.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}})
	bound := time.Now()
	if err == nil {
		err = syscall.Listen(fd, 128)
	}
	return bound.Sub(begin), time.Since(bound), err
}

// repeat times batches of a hundred calls: one alone is shorter than the clock is fine.
func repeat(n int, call func()) []time.Duration {
	var took []time.Duration
	for range n / 20 {
		begin := time.Now()
		for range 100 {
			call()
		}
		took = append(took, time.Since(begin)/100)
	}
	return took
}

func report(name string, took []time.Duration) {
	slices.Sort(took)
	fmt.Println(name, took[len(took)/2].Nanoseconds(), took[len(took)*99/100].Nanoseconds())
}
