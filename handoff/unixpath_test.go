package handoff

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestUnixPathIsPutBack(t *testing.T) {
	path := t.TempDir() + "/s"
	s := open(t, "unix://"+path, Config{Steer: true})
	serve(t, lease(t, s, 1))
	for range 5 {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		until(t, "path back", func() bool { return nodeOf(path) != node{} })
		wantGen(t, "unix", path, 1)
	}
	if err := os.Rename(path, path+".gone"); err != nil {
		t.Fatal(err)
	}
	until(t, "path back", func() bool { return nodeOf(path) != node{} })
	// An app that unlinks the name that it was bound to takes the second link only.
	hidden := s.held[0].current.hidden
	if err := os.Remove(hidden); err != nil {
		t.Fatal(err)
	}
	until(t, "second name back", func() bool { return nodeOf(hidden) != node{} })
	lease(t, s, 2)
	steer(t, s, 2)
	steer(t, s, 1)
	wantGen(t, "unix", path, 1)
}

func TestUnixPathOfSomebodyElse(t *testing.T) {
	dir := t.TempDir()
	file, live, stale := dir+"/file", dir+"/live", dir+"/stale"
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("unix", live)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	for path, want := range map[string]string{file: "not a socket", live: "already served by another process"} {
		for _, scheme := range []string{"unix", "unixgram"} {
			if _, err := Open(addresses(t, scheme+"://"+path), Config{Steer: true}); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s %s: %v, want %s", scheme, path, err, want)
			}
		}
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "precious" {
		t.Error("the file was touched")
	}
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	dead.Close()
	uid, gid := os.Getuid(), os.Getgid()
	if uid == 0 {
		uid, gid = 12345, 54321
	}
	s := open(t, fmt.Sprintf("unix://%s?mode=0620&owner=%d&group=%d", stale, uid, gid), Config{Steer: true})
	var st unix.Stat_t
	if err := unix.Stat(stale, &st); err != nil || st.Mode&0o777 != 0o620 || int(st.Uid) != uid || int(st.Gid) != gid {
		t.Errorf("mode %o, owner %d:%d, %v", st.Mode&0o777, st.Uid, st.Gid, err)
	}
	lease(t, s, 1)
	lease(t, s, 2)
	steer(t, s, 2)
	if err := unix.Stat(stale, &st); err != nil || st.Mode&0o777 != 0o620 || int(st.Uid) != uid {
		t.Errorf("after a switch: mode %o, owner %d, %v", st.Mode&0o777, st.Uid, err)
	}
	// Somebody binds the path: it is theirs, also when we close.
	other := t.TempDir() + "/other" // elsewhere: the watch says nothing, Repair has to
	ln2, err := net.Listen("unix", other)
	if err != nil {
		t.Fatal(err)
	}
	defer ln2.Close()
	if err := os.Rename(other, stale); err != nil {
		t.Fatal(err)
	}
	if err := s.Repair(); err == nil || s.Repair() != nil {
		t.Error("a foreign socket at the path is not reported exactly once")
	}
	s.Close()
	if (nodeOf(stale) == node{}) {
		t.Error("we unlinked a foreign socket")
	}
}

func TestUnixLongDirectory(t *testing.T) {
	base := t.TempDir()
	dir := base + "/" + strings.Repeat("d", maxUnixPath-len(base)-4)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	path := dir + "/s"
	s := open(t, "unix://"+path+"?mode=0600", Config{Steer: true})
	if st := s.Status()[0]; st.Mode != modeShared || !strings.Contains(st.Why, "too long") {
		t.Errorf("%+v", st)
	}
	serve(t, lease(t, s, 1))
	wantGen(t, "unix", path, 1)
	s.Close()
	if left, _ := filepath.Glob(dir + "/*"); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestLeftoversOfAnEarlierRun(t *testing.T) {
	dir := t.TempDir()
	a := addresses(t, "unix://"+dir+"/s")
	sl, err := openUnixSlot(&a[0])
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(sl.fd) // as SIGKILL leaves it
	open(t, "unix://"+dir+"/s", Config{Steer: true})
	if (nodeOf(sl.hidden) != node{}) {
		t.Error("the dead name is still there")
	}
}

func TestUnixgramFollowsTheSwitch(t *testing.T) {
	path := t.TempDir() + "/d"
	s := open(t, "unixgram://"+path, Config{Steer: true})
	leases := []*Lease{lease(t, s, 1), lease(t, s, 2)}
	for i := range 6 {
		l := leases[i%2]
		steer(t, s, l.gen)
		c, err := net.Dial("unixgram", path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		c.Close()
		fd := l.Files()[0].FD
		until(t, "datagram", func() bool { return readable(fd) })
		if _, _, err := unix.Recvfrom(fd, make([]byte, 4), unix.MSG_DONTWAIT); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Accepted(deadline(t, time.Second), 1, nil); err != ErrNoStream {
		t.Error(err)
	}
}
