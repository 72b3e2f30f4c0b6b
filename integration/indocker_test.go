//go:build integration

package integration

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hotswap-init/entrypoint/integration/engine"
)

// TestInDocker is the life of a container as an engine and an orchestrator lead it.
func TestInDocker(t *testing.T) {
	table(t, "docker", []row{
		{"healthcheck", dockerHealth},
		{"init-hup", dockerInit},
		{"unknown-user", dockerStranger},
		{"stop-signal", dockerStopSignal},
		{"delay", dockerDelay},
		{"restart-or-anew", dockerRestart},
		{"compose", dockerCompose},
	})
}

// docker runs a command of the engine.
func docker(t *testing.T, e engine.Engine, args ...string) string {
	t.Helper()
	out, err := e.(*engine.Docker).Daemon().Run(limit(t), args...)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

// healthImage has the init, the app and a HEALTHCHECK as Dockerfile.example does, asked more often.
func (s *scene) healthImage(e engine.Engine, settings string) string {
	s.t.Helper()
	base := s.dress(e, settings)
	dir := s.t.TempDir()
	text := "FROM " + base + "\nHEALTHCHECK --interval=500ms --timeout=20s --retries=1 --start-period=20s CMD [\"/entrypoint\", \"health\"]\n"
	must(s, os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(text), 0o644))
	must(s, e.(*engine.Docker).Daemon().Build(limit(s.t), base+"-health", dir))
	return base + "-health"
}

// containerOf finds the one container of an image.
func containerOf(t *testing.T, e engine.Engine, image string) string {
	t.Helper()
	return docker(t, e, "ps", "-q", "--filter", "ancestor="+image)
}

// dockerHealth: HEALTHCHECK turns healthy and stays so over ten swaps, one of them refused; it turns unhealthy when nothing serves, and healthy again.
func dockerHealth(t *testing.T, e engine.Engine) {
	s := &scene{t: t, addr: freeAddress(t), dir: t.TempDir()}
	image := s.healthImage(e, "version=v0 listen=tcp:"+s.addr)
	turns := healthTurns(t, e, image)
	s.c = startPlain(t, e, engine.Spec{Image: image, Env: []string{"ENTRYPOINT_ON_FATAL=wait"}})
	id := containerOf(t, e, image)
	health := func(want string) {
		t.Helper()
		s.eventually("the container is "+want, func() error {
			if got := docker(t, e, "inspect", "-f", "{{.State.Health.Status}}", id); got != want {
				return errors.New("it is " + got)
			}
			return nil
		})
	}
	s.waitVersion("v0")
	health("healthy")
	healthy := time.Now()
	for i := range 10 {
		s.uploaded(fmt.Sprintf("version=v%d boot=400ms listen=tcp:%s", i+1, s.addr))
	}
	if r := s.upload("version=v11 fail=1"); r.code != 1 {
		t.Errorf("a broken one: %v", r)
	}
	s.checksPass(e, id, healthy)
	if code, out := s.exec("signal", "KILL"); code != 0 {
		t.Fatalf("signal: %d %s", code, out)
	}
	health("unhealthy")
	s.uploaded("version=v12 listen=tcp:" + s.addr)
	health("healthy")
	turned := func() string {
		t.Helper()
		select {
		case turn := <-turns:
			return strings.TrimPrefix(turn, "health_status: ")
		case <-limit(t).Done():
			t.Fatal("the engine does not tell of the next turn")
		}
		return ""
	}
	for i, want := range []string{"healthy", "unhealthy", "healthy"} {
		if got := turned(); got != want {
			t.Fatalf("turn %d: the engine saw it %s, want %s", i+1, got, want)
		}
	}
	must(s, s.c.Stop(10*time.Second))
	turn := turned()
	if turn == "unhealthy" { // a check that came while it stopped, and was told so
		turn = turned()
	}
	if turn != "die" {
		t.Errorf("when it stopped, the engine saw it %s", turn)
	}
}

// healthTurns are the changes of health of the containers of an image, and their ends, from now on, as the engine tells them. (It keeps too few to be asked afterwards.)
func healthTurns(t *testing.T, e engine.Engine, image string) <-chan string {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := e.(*engine.Docker).Daemon().Command(ctx, "events", "--since", time.Now().Format(time.RFC3339Nano), "--filter", "image="+image,
		"--filter", "event=health_status", "--filter", "event=die", "--format", "{{.Action}}")
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	turns := make(chan string, 100)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			turns <- lines.Text()
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		_ = cmd.Wait() // killed
	})
	return turns
}

// checksPass waits for three more checks and wants all that are kept to be good: those since the app was healthy first.
func (s *scene) checksPass(e engine.Engine, id string, healthy time.Time) {
	s.t.Helper()
	type check struct {
		Start    time.Time
		ExitCode int
		Output   string
	}
	begin := time.Now()
	seen := map[time.Time]check{}
	s.eventually("three more health checks", func() error {
		var last []check
		must(s, json.Unmarshal([]byte(docker(s.t, e, "inspect", "-f", "{{json .State.Health.Log}}", id)), &last))
		for _, c := range last {
			seen[c.Start] = c
		}
		after := 0
		for start := range maps.Keys(seen) {
			if start.After(begin) {
				after++
			}
		}
		if after < 3 {
			return fmt.Errorf("there were %d", after)
		}
		return nil
	})
	for _, c := range seen {
		if c.ExitCode != 0 && c.Start.After(healthy) {
			s.t.Errorf("a health check failed: %+v", c)
		}
	}
}

// dockerInit: with --init we are not PID 1; HUP comes through docker-init, and is a swap all the same.
func dockerInit(t *testing.T, e engine.Engine) {
	s := playSpec(t, e, "version=v1", engine.Spec{Args: []string{"--init"}})
	s.underLoad()
	for i := range 3 {
		version := fmt.Sprintf("v%d", i+2)
		s.put("version=" + version)
		s.begins()
		s.signal(syscall.SIGHUP)
		s.waitVersion(version)
		s.settled()
	}
	if st, err := s.status(); err != nil || st.PID == 1 || st.Active != 4 {
		t.Errorf("pid %d, generation %d (%v)", st.PID, st.Active, err)
	}
	s.lossless()
	must(s, s.c.Stop(10*time.Second))
	s.waitExit(0)
}

// dockerStranger: a user that is in no passwd file, as some clusters choose one.
func dockerStranger(t *testing.T, e engine.Engine) {
	s := playSpec(t, e, "version=v1", engine.Spec{User: "1234560000:0", DropCaps: true, ReadOnly: true})
	s.underLoad()
	s.uploaded("version=v2")
	if st := s.state(); st.UID != 1234560000 || st.GID != 0 {
		t.Errorf("uid %d, gid %d", st.UID, st.GID)
	}
	s.put("version=v3")
	s.reload(0)
	s.serves("v3", 3)
	s.lossless()
}

// dockerStopSignal: an image whose STOPSIGNAL is another one. It is the app's, as under a plain init; with a word in ENTRYPOINT_SIGNALS it is a stop.
func dockerStopSignal(t *testing.T, e engine.Engine) {
	s := playSpec(t, e, "version=v1 exit=7", engine.Spec{Args: []string{"--stop-signal", "QUIT"}, Env: []string{"ENTRYPOINT_SIGNALS=QUIT=stop"}})
	s.begins()
	begin := time.Now()
	must(s, s.c.Stop(10*time.Second))
	s.waitExit(7)
	if took := time.Since(begin); took > 8*time.Second {
		t.Errorf("the stop took %v: the signal did nothing", took)
	}
	if strings.Contains(s.c.Logs(), ": signal 3\n") {
		t.Error("the app got QUIT itself")
	}
}

// dockerDelay: after TERM the clients that have not heard of it are served as before, the probe says no from the beginning, and no swap begins. A second
// stop does not wait for the rest of the delay.
func dockerDelay(t *testing.T, e engine.Engine) {
	s := play(t, e, "version=v1", "ENTRYPOINT_SHUTDOWN_DELAY=2m", "ENTRYPOINT_SHUTDOWN_TIMEOUT=2m")
	s.begins()
	s.underLoad()
	begin := time.Now()
	s.signal(syscall.SIGTERM)
	s.waitStatus("it is stopping", func(st status) bool { return st.State == "stopping" })
	if code, out := s.exec("health"); code != 1 {
		t.Errorf("health: %d %s", code, out)
	}
	if code, out := s.exec("reload"); code == 0 {
		t.Errorf("a swap began while the container ends: %s", out)
	}
	for time.Since(begin) < 3*time.Second {
		s.answered(50)
	}
	s.lossless()
	s.signal(syscall.SIGTERM)
	s.promptly(5*time.Second, 137)
}

// dockerRestart: a container that is started again keeps what was pushed, where its root can be written to; one that is made anew has the program of
// its image. A pod always makes anew.
func dockerRestart(t *testing.T, e engine.Engine) {
	s := &scene{t: t, addr: freeAddress(t), dir: t.TempDir()}
	image := s.dress(e, "version=v1 listen=tcp:"+s.addr)
	v1 := fileSum(t, s.stamp("version=v1 listen=tcp:"+s.addr))
	c := startPlain(t, e, engine.Spec{Image: image})
	s.c = c
	s.waitVersion("v1")
	s.says(s.uploaded("version=v2 listen=tcp:"+s.addr), 0, "replaced /app/server")
	s.waitStatus("what runs is not the image's program", func(st status) bool { return st.Drift && st.Image == v1 }) // known with the hash
	s.again()
	s.begun = false
	s.waitVersion("v2")
	s.begins()
	// What this start had is all that there is to compare with: an image's bytes are nowhere to be seen from inside.
	if st, err := s.status(); err != nil || st.Drift || st.Image == v1 {
		t.Errorf("after docker restart: drift %v, image %s (%v)", st.Drift, st.Image, err)
	}
	must(s, c.Close())
	s.c = startPlain(t, e, engine.Spec{Image: image})
	s.begun = false
	s.waitVersion("v1")
	s.begins()
	if _, sum := s.facts(); sum != v1 {
		t.Errorf("a new container runs %s, want %s", sum, v1)
	}
}

// dockerCompose runs deploy/compose.yaml by Compose itself, on the network of the machine and without what is newer than Debian's Compose; then it does what
// `develop.watch` does: it copies a program into the folder that is watched.
func dockerCompose(t *testing.T, e engine.Engine) {
	s := &scene{t: t, addr: freeAddress(t), dir: t.TempDir()}
	image := s.dress(e, "version=v1 listen=tcp:"+s.addr)
	doc := documents(t, deployFolder+"/compose.yaml")[0]
	target := fmt.Sprint(at(doc, "services", "server", "develop", "watch", 0, "target"))
	service := at(doc, "services", "server").(map[string]any)
	service["image"], service["network_mode"] = image, "host"
	delete(service, "build")
	delete(service, "ports")
	service["healthcheck"].(map[string]any)["interval"] = "1s"
	file := composeWithout(t, doc)
	daemon := e.(*engine.Docker).Daemon()
	compose := func(args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(limit(t), "docker-compose", append([]string{"-p", "ep" + image, "-f", file}, args...)...)
		cmd.Env = append(os.Environ(), "DOCKER_HOST="+daemon.Host(), "COMPOSE_ANSI=never")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("docker-compose %q: %v\n%s", args, err, out)
		}
		return string(out)
	}
	compose("up", "-d", "--no-build")
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(compose("logs", "--no-color"))
		}
		compose("down", "--timeout", "1")
	})
	id := containerOf(t, e, image)
	s.c = nil
	s.waitVersion("v1")
	s.eventually("Compose calls it healthy", func() error {
		if got := docker(t, e, "inspect", "-f", "{{.State.Health.Status}}", id); got != "healthy" {
			return errors.New("it is " + got)
		}
		return nil
	})
	s.underLoad()
	docker(t, e, "cp", s.stamp("version=v2 listen=tcp:"+s.addr), id+":"+target+"/server")
	s.waitVersion("v2")
	s.answered(100)
	s.lossless()
	if got := docker(t, e, "inspect", "-f", "{{.Config.StopTimeout}} {{.Config.StopSignal}}", id); !strings.HasPrefix(got, "20") {
		t.Errorf("the grace period is %q", got)
	}
	compose("stop")
	if code := docker(t, e, "inspect", "-f", "{{.State.ExitCode}}", id); code != "0" {
		t.Errorf("it ended with %s: not by itself, inside the grace period", code)
	}
}
