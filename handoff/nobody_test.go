package handoff

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func init() { helpers["nobody"] = nobody }

// nobody splits and counts as a process without any privilege. It reports what does not work.
func nobody() int {
	if err := tryAsNobody(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func tryAsNobody() error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	for _, listen := range []string{"tcp4://127.0.0.1:0", "tcp://:0"} {
		if err := splitAsNobody(listen); err != nil {
			return fmt.Errorf("%s: %w", listen, err)
		}
	}
	return nil
}

func splitAsNobody(listen string) error {
	addrs, err := ParseAddresses(listen)
	if err != nil {
		return err
	}
	s, err := Open(addrs, Config{Steer: true})
	if err != nil {
		return err
	}
	defer s.Close()
	var l [2]*Lease
	for i := range l {
		if l[i], err = s.Lease(i + 1); err != nil {
			return err
		}
	}
	if err := s.Steer(1); err != nil {
		return err
	}
	if err := s.Split(1, 2, Share{Portion: 0.5}); err != nil {
		return err
	}
	const clients = 40
	for range clients {
		c, err := net.Dial("tcp", local(s))
		if err != nil {
			return err
		}
		defer c.Close()
	}
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		one, err1 := l[0].Load()
		two, err2 := l[1].Load()
		if s.colored && one.Known && two.Known && one.Queued > 0 && two.Queued > 0 && one.Queued+two.Queued == clients {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("colours %v, loads %+v %v and %+v %v", s.colored, one, err1, two, err2)
		}
	}
}

// TestSplitAsNobody: shares, and whose connection is whose, need no privilege.
func TestSplitAsNobody(t *testing.T) {
	cmd := helper(t, "nobody", nil, os.Environ())
	if os.Geteuid() == 0 {
		exe := t.TempDir() + "/self" // the test binary's own folder may be closed to others
		b, err := os.ReadFile(cmd.Path)
		if err == nil {
			err = os.WriteFile(exe, b, 0o755)
		}
		for dir := exe; err == nil && dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
			err = os.Chmod(dir, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
		cmd.Path = exe
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	if err := cmd.Run(); err != nil {
		t.Error(err)
	}
}
