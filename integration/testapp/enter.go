package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// jail is what enter makes of the calling process.
type jail struct {
	root     string
	binds    []string // host folders, seen under the same name, read-only
	shares   []string // host folders that can be written to, each with its name inside
	readOnly bool
	uid, gid int
	noCaps   bool
	tmpfs    []string // PATH:OPTIONS
	denied   []denial
	command  []string
}

// enter turns a process in fresh PID and mount namespaces into the first one of a
// container and executes the command in its own place, so that the command is PID 1:
//
//	enter root=DIR [bind=/usr …] [share=DIR:PATH …] [ro] [user=UID:GID] [nocaps] [tmpfs=PATH:OPTIONS …] [deny=NUMBER:ERRNO[:ARGUMENT=VALUE…] …] -- COMMAND…
func enter(args []string) error {
	j, err := parseJail(args)
	if err != nil {
		return err
	}
	runtime.LockOSThread() // credentials below are the thread's; exec makes them the process's
	if err := j.mounts(); err != nil {
		return err
	}
	if err := pivot(j.root); err != nil {
		return fmt.Errorf("cannot make %q the root: %w", j.root, err)
	}
	if j.readOnly {
		if err := remountReadOnly("/"); err != nil {
			return err
		}
	}
	if err := j.dropPrivileges(); err != nil {
		return fmt.Errorf("cannot drop privileges: %w", err)
	}
	if err := deny(j.denied); err != nil {
		return err
	}
	return fmt.Errorf("cannot execute %q: %w", j.command[0], syscall.Exec(j.command[0], j.command, os.Environ()))
}

func parseJail(args []string) (jail, error) {
	var j jail
	for i, word := range args {
		key, value, _ := strings.Cut(word, "=")
		switch key {
		case "root":
			j.root = value
		case "bind":
			j.binds = append(j.binds, value)
		case "share":
			j.shares = append(j.shares, value)
		case "ro":
			j.readOnly = true
		case "nocaps":
			j.noCaps = true
		case "user":
			uid, gid, _ := strings.Cut(value, ":")
			j.uid, _ = strconv.Atoi(uid)
			j.gid, _ = strconv.Atoi(gid)
		case "tmpfs":
			j.tmpfs = append(j.tmpfs, strings.TrimPrefix(word, "tmpfs="))
		case "deny":
			d, err := parseDenial(strings.TrimPrefix(word, "deny="))
			if err != nil {
				return j, err
			}
			j.denied = append(j.denied, d)
		case "--":
			j.command = args[i+1:]
			if j.root == "" || len(j.command) == 0 {
				return j, fmt.Errorf("enter wants a root and a command")
			}
			return j, nil
		default:
			return j, fmt.Errorf("enter does not know %q", word)
		}
	}
	return j, fmt.Errorf("enter wants -- before the command")
}

// mounts builds the tree below root: itself (pivot_root wants a mount), proc, dev
// and the bound folders.
func (j jail) mounts() error {
	if err := bind(j.root, j.root, false); err != nil {
		return err
	}
	proc := filepath.Join(j.root, "proc")
	if err := os.MkdirAll(proc, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("proc", proc, "proc", 0, ""); err != nil {
		return fmt.Errorf("cannot mount %q: %w", proc, err)
	}
	if err := bind("/dev", filepath.Join(j.root, "dev"), false); err != nil {
		return err
	}
	for _, word := range j.tmpfs {
		path, options, _ := strings.Cut(word, ":")
		if err := mountTmpfs(filepath.Join(j.root, path), options); err != nil {
			return err
		}
	}
	for _, dir := range j.binds {
		if err := bind(dir, filepath.Join(j.root, dir), true); err != nil {
			return err
		}
	}
	for _, word := range j.shares {
		dir, inside, _ := strings.Cut(word, ":")
		if err := bind(dir, filepath.Join(j.root, inside), false); err != nil {
			return err
		}
	}
	return nil
}

// mountTmpfs makes a folder a file system in memory.
func mountTmpfs(path, options string) error {
	if err := os.MkdirAll(path, 0o777); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", path, "tmpfs", 0, options); err != nil {
		return fmt.Errorf("cannot mount %q: %w", path, err)
	}
	return nil
}

func bind(from, to string, readOnly bool) error {
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(from, to, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("cannot bind %q to %q: %w", from, to, err)
	}
	if readOnly {
		return remountReadOnly(to)
	}
	return nil
}

func remountReadOnly(dir string) error {
	if err := unix.Mount("", dir, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		return fmt.Errorf("cannot make %q read-only: %w", dir, err)
	}
	return nil
}

// pivot makes dir the root of this mount namespace and forgets the old one.
func pivot(dir string) error {
	if err := os.Chdir(dir); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return err
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return err
	}
	return os.Chdir("/")
}

// dropPrivileges empties the bounding set, then becomes the user: all other sets
// follow on exec.
func (j jail) dropPrivileges() error {
	if j.noCaps {
		for c := uintptr(0); c <= unix.CAP_LAST_CAP; c++ {
			unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0)
		}
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return err
		}
	}
	if j.uid == 0 {
		return nil
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETGROUPS, 0, 0, 0); e != 0 {
		return e
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESGID, uintptr(j.gid), uintptr(j.gid), uintptr(j.gid)); e != 0 {
		return e
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(j.uid), uintptr(j.uid), uintptr(j.uid)); e != 0 {
		return e
	}
	return nil
}
