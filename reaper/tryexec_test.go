package reaper

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestTryExec: this process makes threads while the kernel thinks about it.
func TestTryExec(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x")
	if err := os.WriteFile(path, []byte("none: not a program\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r := New()
	asked := func() error { return r.TryExec(f) }
	if err := asked(); !errors.Is(err, unix.ENOEXEC) {
		t.Errorf("no program: %v", err)
	}
	// A program that watches the file has to allow each read of it: the kernel waits with the exec until it has.
	fan, err := unix.FanotifyInit(unix.FAN_CLASS_CONTENT|unix.FAN_CLOEXEC|unix.FAN_NONBLOCK, unix.O_RDONLY|unix.O_CLOEXEC)
	if err == nil {
		defer unix.Close(fan)
		err = unix.FanotifyMark(fan, unix.FAN_MARK_ADD, unix.FAN_ACCESS_PERM, unix.AT_FDCWD, path)
	}
	if err != nil {
		t.Skipf("a file cannot be watched: %v", err)
	}
	answer := make(chan error, 1)
	go func() { answer <- asked() }()
	event := make([]byte, 4096)
	ready := []unix.PollFd{{Fd: int32(fan), Events: unix.POLLIN}}
	n, err := unix.Poll(ready, int(limit.Milliseconds()))
	for err == unix.EINTR {
		n, err = unix.Poll(ready, int(limit.Milliseconds()))
	}
	if n != 1 {
		t.Fatalf("the kernel did not ask within %v: %v", limit, err)
	}
	if n, err := unix.Read(fan, event); err != nil || n < 24 {
		t.Fatalf("%d bytes: %v", n, err)
	}
	fd := binary.NativeEndian.Uint32(event[16:])
	var held sync.WaitGroup
	release := make(chan struct{})
	defer close(release)
	for range 20 { // more than there are
		held.Add(1)
		go func() {
			runtime.LockOSThread()
			held.Done()
			<-release
		}()
	}
	held.Wait()
	allow := binary.NativeEndian.AppendUint32(binary.NativeEndian.AppendUint32(nil, fd), unix.FAN_ALLOW)
	if _, err := unix.Write(fan, allow); err != nil {
		t.Fatal(err)
	}
	unix.Close(int(fd))
	select {
	case err := <-answer:
		if !errors.Is(err, unix.ENOEXEC) {
			t.Errorf("no program: %v", err)
		}
	case <-time.After(limit):
		t.Fatalf("no answer within %v", limit)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.FanotifyMark(fan, unix.FAN_MARK_FLUSH, 0, unix.AT_FDCWD, path); err != nil {
		t.Fatal(err)
	}
	if err := asked(); !errors.Is(err, unix.EACCES) {
		t.Errorf("not executable: %v", err)
	}
	if s := r.Stats(); s.Children != 0 || s.Orphans != 0 {
		t.Errorf("they are counted: %+v", s)
	}
}
