//go:build integration

package integration

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hotswap-init/entrypoint/integration/engine"
)

func TestSyslog(t *testing.T) {
	table(t, "unshare", []row{
		{"local", func(t *testing.T, e engine.Engine) { syslogGets(t, e, "local") }},
		{"udp", func(t *testing.T, e engine.Engine) { syslogGets(t, e, "udp") }},
		{"tcp", func(t *testing.T, e engine.Engine) { syslogGets(t, e, "tcp") }},
		{"stalls", syslogStalls},
	})
}

// rsyslog is a real server, with all its ways in.
type rsyslog struct {
	t        *testing.T
	dir, out string
	cmd      *exec.Cmd
}

func startRsyslog(t *testing.T, socket, port string) *rsyslog {
	t.Helper()
	r := &rsyslog{t: t, dir: t.TempDir()}
	r.out = filepath.Join(r.dir, "out")
	conf := fmt.Sprintf(`global(workDirectory="%[1]s")
module(load="imuxsock" SysSock.Use="off")
input(type="imuxsock" Socket="%[2]s" ParseHostname="off")
module(load="imudp")
input(type="imudp" address="127.0.0.1" port="%[3]s")
module(load="imtcp")
input(type="imtcp" address="127.0.0.1" port="%[3]s")
template(name="all" type="string" string="%%pri%% %%app-name%% %%procid%% %%inputname%% %%protocol-version%%|%%msg%%\n")
action(type="omfile" file="%[4]s" template="all")
`, r.dir, socket, port, r.out)
	must(&scene{t: t}, os.WriteFile(filepath.Join(r.dir, "conf"), []byte(conf), 0o600))
	r.start()
	t.Cleanup(r.stop)
	return r
}

func (r *rsyslog) start() {
	r.t.Helper()
	r.cmd = exec.Command("rsyslogd", "-n", "-f", filepath.Join(r.dir, "conf"), "-i", filepath.Join(r.dir, "pid"))
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	must(&scene{t: r.t}, r.cmd.Start())
}

func (r *rsyslog) stop() {
	if r.cmd != nil {
		r.cmd.Process.Kill()
		r.cmd.Wait()
		r.cmd = nil
	}
}

// has waits until a line with both of these has come.
func (r *rsyslog) has(s *scene, head, text string) {
	s.t.Helper()
	s.eventually("the syslog has "+text, func() error {
		b, err := os.ReadFile(r.out)
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(b)) {
			if strings.HasPrefix(line, head) && strings.Contains(line, text) {
				return nil
			}
		}
		return fmt.Errorf("it has:\n%s", tail(string(b), 10))
	})
}

// syslogGets: our lines reach a real server, also after it was away.
func syslogGets(t *testing.T, e engine.Engine, way string) {
	if _, err := exec.LookPath("rsyslogd"); err != nil {
		t.Skip("SKIPPED: rsyslogd is not installed")
	}
	at := freeAddress(t)
	_, port, _ := net.SplitHostPort(at)
	to := map[string]string{"local": "syslog:///tmp/log", "udp": "udp://localhost:" + port, "tcp": "tcp://localhost:" + port}[way]
	s := playSpec(t, e, "version=v1", engine.Spec{HostTools: true, Env: []string{"ENTRYPOINT_LOG=" + to, "ENTRYPOINT_LOG_FORMAT=text"}}) // names need /etc/hosts
	s.begins()
	r := startRsyslog(t, inContainer(s, "/tmp/log"), port)
	input := map[string]string{"local": "imuxsock", "udp": "imudp", "tcp": "imtcp"}[way]
	version := map[string]string{"local": "0", "udp": "1", "tcp": "1"}[way]
	head := func(pri int) string { return fmt.Sprintf("%d entrypoint 1 %s %s|", pri, input, version) }
	swaps := 0
	said := func() { // reload until it is heard: an attempt to connect may have been a moment ago
		s.eventually("a swap is in the syslog", func() error {
			swaps++
			s.reload(0)
			b, err := os.ReadFile(r.out)
			if err == nil && !strings.Contains(string(b), "msg=swap") {
				err = errAgain
			}
			return err
		})
	}
	said()
	r.has(s, head(30), "msg=swap")
	r.stop()
	must(s, os.Remove(r.out))
	s.reload(0) // it is on standard error, if that was noticed
	r.start()
	said()
	s.put("version=v2 fail=3")
	s.reload(1)
	r.has(s, head(27), "code=1") // as an error
	s.signal(syscall.SIGTERM)
	s.waitExit(0)
	r.has(s, head(30), "event=gone")
	if way != "udp" && !strings.Contains(s.c.Logs(), "cannot be sent to the syslog") {
		t.Errorf("without a server nothing was on standard error:\n%s", s.c.Logs())
	}
}

// syslogStalls: a server that reads nothing holds nothing up, and the lines are readable.
func syslogStalls(t *testing.T, e engine.Engine) {
	small := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) { // so that little goes into it
		return errors.Join(c.Control(func(fd uintptr) { err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4096) }), err)
	}}
	l, err := small.Listen(limit(t), "tcp", "127.0.0.1:0")
	must(&scene{t: t}, err)
	t.Cleanup(func() { l.Close() }) // nobody accepts
	s := playSpec(t, e, "version=v1", engine.Spec{HostTools: true, Env: []string{
		"ENTRYPOINT_LOG=tcp://" + l.Addr().String(), `ENTRYPOINT_HOOK_POST_PROMOTE=["sh", "-c", "seq -f 'a line that is long enough to fill the buffers of the kernel soon: %g' 1 60000"]`,
	}})
	s.begins()
	s.underLoad()
	t.Cleanup(func() {
		if !t.Failed() {
			return
		}
		_ = l.(*net.TCPListener).SetDeadline(time.Now().Add(time.Second))
		if c, err := l.Accept(); err == nil { // what the syslog would have been told
			_ = c.SetReadDeadline(time.Now().Add(time.Second))
			told, _ := io.ReadAll(io.LimitReader(c, 64<<10))
			t.Logf("sent: %s", told)
		}
	})
	for range 3 {
		s.reload(0)
		s.settled()
	}
	s.eventually("lines are on standard error", func() error {
		if !strings.Contains(s.c.Logs(), "hook says") {
			return errAgain
		}
		return nil
	})
	s.lossless()
	s.signal(syscall.SIGTERM)
	s.waitExit(0)
	if !strings.Contains(s.c.Logs(), "the syslog") {
		t.Error("it is not said why lines are on standard error")
	}
}
