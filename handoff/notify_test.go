package handoff

import (
	"context"
	"errors"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// notify runs a Notify whose messages arrive at got.
func notify(t *testing.T, belongs func(int) bool, got chan<- Message) *Notify {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	n, err := NewNotify(1, AllProtocols, belongs, func(m Message) {
		select {
		case got <- m:
		case <-ctx.Done():
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return n
}

func TestParseNotify(t *testing.T) {
	for _, c := range []struct {
		in      string
		want    Message
		barrier bool
	}{
		{"READY=1", Message{Ready: true}, false},
		{"READY=1\n", Message{Ready: true}, false},
		{"READY=0\nnonsense\n=x", Message{}, false},
		{"STOPPING=1\nSTATUS=bye\x1b[0m\nMAINPID=42\nERRNO=2", Message{Stopping: true, Status: "bye?[0m", MainPID: 42, Errno: 2}, false},
		{"RELOADING=1\nMONOTONIC_USEC=5\nEXTEND_TIMEOUT_USEC=2500000", Message{Reloading: true, ExtendTimeout: 2500 * time.Millisecond}, false},
		{"EXTEND_TIMEOUT_USEC=18446744073709551615\nMAINPID=-3", Message{}, false},
		{"EXTEND_TIMEOUT_USEC=9223372036854775807", Message{ExtendTimeout: maxExtend}, false},
		{"BARRIER=1", Message{}, true},
		{"BARRIER=1\nREADY=1", Message{Ready: true}, false},
		{"", Message{}, false},
	} {
		got, barrier := parseNotify([]byte(c.in))
		got.Raw = nil
		if d := cmp.Diff(c.want, got); d != "" || barrier != c.barrier {
			t.Errorf("%q: barrier %v, %s", c.in, barrier, d)
		}
	}
}

func TestParseEinhorn(t *testing.T) {
	for in, pid := range map[string]int{
		`{"command":"worker:ack","pid":12}`:        12,
		`{"pid":12,"command":"worker:ack"}%0A`:     12,
		"{%22command%22:\"worker:ack\",\"pid\":7}": 7,
		`{"command":"worker:ping","pid":12}`:       -1,
		`{"command":"worker:ack","pid":-1}`:        -1,
		`%`:                                        -1,
		`garbage`:                                  -1,
		``:                                         -1,
	} {
		m, ok := parseEinhorn([]byte(in))
		if ok != (pid >= 0) || ok && (m.PID != pid || !m.Ready) {
			t.Errorf("%q: %+v %v", in, m, ok)
		}
	}
}

func TestEveryReadinessProtocol(t *testing.T) {
	got := make(chan Message, 9)
	n := notify(t, func(pid int) bool { return pid == os.Getpid() }, got)
	ack := `{"command":"worker:ack","pid":` + strconv.Itoa(os.Getpid()) + "}\n"
	if !strings.HasPrefix(n.Address(), "@") || len(n.Address()) > maxUnixPath {
		t.Errorf("address %q", n.Address())
	}
	for name, send := range map[string]func() error{
		"sd_notify":         func() error { return SdNotify(n.Address(), []string{"READY=1", "STATUS=x"}) },
		"crank":             func() error { _, err := unix.Write(n.crankFD, []byte(" READY=1\n")); return err },
		"einhorn inherited": func() error { _, err := unix.Write(n.einhornFD, []byte(ack)); return err },
		"einhorn socket": func() error {
			c, err := net.Dial("unix", n.einhornPath)
			if err == nil {
				_, err = c.Write([]byte(ack))
				err = errors.Join(err, c.Close())
			}
			return err
		},
	} {
		if err := send(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		select {
		case m := <-got:
			if !m.Ready || name != "crank" && m.PID != os.Getpid() {
				t.Errorf("%s: %+v", name, m)
			}
		case <-time.After(5 * time.Second):
			t.Fatalf("%s: nothing came", name)
		}
	}
}

func TestBarrierComesAfterDelivery(t *testing.T) {
	got := make(chan Message) // nobody takes it yet
	n := notify(t, func(int) bool { return true }, got)
	confirmed := make(chan error, 1)
	go func() { confirmed <- SdNotify(n.Address(), []string{"READY=1"}) }()
	select {
	case err := <-confirmed:
		t.Fatalf("confirmed before it was delivered: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	<-got
	if err := <-confirmed; err != nil {
		t.Error(err)
	}
}

func TestStrangersAreNotHeard(t *testing.T) {
	got := make(chan Message, 9)
	n := notify(t, func(int) bool { return false }, got)
	before := openFDs(t)
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: n.Address(), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 50 { // with descriptors, which must be closed
		if err := sendRights(c, []byte("READY=1\nSTATUS="+strconv.Itoa(i)), unix.UnixRights(0, 1, 2)); err != nil {
			t.Fatal(err)
		}
	}
	// A barrier of a stranger is not waited for: its descriptor is closed, and by then the rest has been read.
	if err := SdNotify(n.Address(), []string{"READY=1"}); err != nil {
		t.Fatal(err)
	}
	if e, err := net.Dial("unix", n.einhornPath); err == nil {
		_, _ = e.Write([]byte(`{"command":"worker:ack","pid":1}` + "\n"))
		_, _ = e.Read(make([]byte, 1))
		e.Close()
	}
	c.Close()
	if len(got) > 0 {
		t.Errorf("heard %+v", <-got)
	}
	until(t, "descriptors closed", func() bool { return openFDs(t) <= before })
}

func TestSenderThatIsGone(t *testing.T) {
	n, err := NewNotify(1, AllProtocols, func(int) bool { return false }, func(Message) {})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	p, err := os.StartProcess("/proc/self/exe", []string{"helper:none"}, &os.ProcAttr{})
	if err != nil {
		t.Fatal(err)
	}
	_, _ = p.Wait()
	for _, c := range []struct {
		cred unix.Ucred
		want bool
	}{
		{unix.Ucred{Pid: int32(p.Pid), Uid: 0}, true},
		{unix.Ucred{Pid: int32(p.Pid), Uid: 4711}, false},
		{unix.Ucred{Pid: int32(os.Getpid()), Uid: 0}, false},
		{unix.Ucred{Pid: 0, Uid: 0}, false},
	} {
		if got := n.accepts(&c.cred); got != c.want {
			t.Errorf("%+v accepted: %v", c.cred, got)
		}
	}
	n.AllowUID(4711)
	if !n.accepts(&unix.Ucred{Pid: int32(p.Pid), Uid: 4711}) {
		t.Error("the app's uid is not heard")
	}
}

func TestSdNotifyErrors(t *testing.T) {
	for _, path := range []string{"", "relative", "/nowhere/notify", "@nobody-listens-here"} {
		if err := SdNotify(path, []string{"READY=1"}); err == nil {
			t.Errorf("%q: no error", path)
		}
	}
}

func FuzzParseNotify(f *testing.F) {
	for _, s := range []string{"READY=1\nSTATUS=x", "BARRIER=1", "EXTEND_TIMEOUT_USEC=99", "MAINPID=1\nERRNO=x", "=\n=\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, barrier := parseNotify(b)
		if barrier && (m.Ready || len(m.Raw) != 1) || len(m.Raw) > maxAssignments || m.MainPID < 0 || m.ExtendTimeout < 0 {
			t.Errorf("%+v", m)
		}
		if strings.ContainsAny(m.Status, "\n\x1b\x00") {
			t.Errorf("status %q", m.Status)
		}
		parseCrank(b)
	})
}

func FuzzParseEinhorn(f *testing.F) {
	f.Add([]byte(`{"command":"worker:ack","pid":12}`))
	f.Add([]byte(`%7B%22`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, ok := parseEinhorn(b); ok && (!m.Ready || m.PID < 0) {
			t.Errorf("%+v", m)
		}
	})
}
