package main

import (
	"fmt"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// denial is a system call that fails: NUMBER:ERRNO, and of the call only where each of its ARGUMENT=VALUE holds, or ARGUMENT&BITS.
type denial struct {
	number, errno uint32
	where         []condition
}

type condition struct {
	argument, value uint32 // the low half of it
	mask            bool
}

func parseDenial(text string) (denial, error) {
	var d denial
	words := strings.Split(text, ":")
	if len(words) < 2 {
		return d, fmt.Errorf("%q is not NUMBER:ERRNO", text)
	}
	numbers := make([]uint32, 2)
	for i := range numbers {
		n, err := strconv.ParseUint(words[i], 10, 32)
		if err != nil {
			return d, err
		}
		numbers[i] = uint32(n)
	}
	d.number, d.errno = numbers[0], numbers[1]
	for _, word := range words[2:] {
		c := condition{mask: strings.Contains(word, "&")}
		argument, value, _ := strings.Cut(strings.Replace(word, "&", "=", 1), "=")
		a, err := strconv.ParseUint(argument, 10, 32)
		if err != nil {
			return d, err
		}
		v, err := strconv.ParseUint(value, 10, 32)
		if err != nil {
			return d, err
		}
		c.argument, c.value = uint32(a), uint32(v)
		d.where = append(d.where, c)
	}
	return d, nil
}

// program answers the call with the error, and goes on to what follows it otherwise.
func (d denial) program() []unix.SockFilter {
	const nr, args = 0, 16 // in struct seccomp_data
	low := uint32(0)
	if one := uint16(1); *(*byte)(unsafe.Pointer(&one)) == 0 {
		low = 4
	}
	load := func(at uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: at}
	}
	left := 2*len(d.where) + 1 // instructions after the first comparison
	code := []unix.SockFilter{load(nr), {Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: d.number, Jf: uint8(left)}}
	for _, c := range d.where {
		left -= 2
		how := uint16(unix.BPF_JEQ)
		if c.mask {
			how = unix.BPF_JSET
		}
		code = append(code, load(args+8*c.argument+low), unix.SockFilter{Code: unix.BPF_JMP | how | unix.BPF_K, K: c.value, Jf: uint8(left)})
	}
	return append(code, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | d.errno&unix.SECCOMP_RET_DATA})
}

// deny installs them on the calling thread, and so on whatever it executes.
func deny(list []denial) error {
	if len(list) == 0 {
		return nil
	}
	var code []unix.SockFilter
	for _, d := range list {
		code = append(code, d.program()...)
	}
	code = append(code, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW})
	prog := unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}
	_, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&prog)))
	if errno != 0 {
		return fmt.Errorf("cannot install a filter: %w", errno)
	}
	return nil
}
