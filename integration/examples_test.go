//go:build integration

package integration

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hotswap-init/entrypoint/integration/engine"
	"github.com/hotswap-init/entrypoint/integration/load"
)

// example is a folder of examples/, whose Dockerfile says how it is run.
type example struct {
	name      string
	recipe    string   // in a few words, for the page
	version   string   // as in stack
	build     []string // what the Dockerfile does in RUN, as in stack
	compiled  []string // what comes of it, beyond what the Dockerfile copies
	spare     bool     // left out where its compiler is not installed
	image     string   // a program: the Dockerfile is built, on an image that has nothing but this one
	anonymous bool     // does not tell its generation
	lost      int      // so many requests may be lost in all swaps, for the reason that its README gives
	plain     stack    // the same server without the recipe
}

const examplePost = 200 // bytes

// Few swaps are for make test; EXAMPLE_SWAPS and EXAMPLE_CLIENTS are for longer runs, such as those of make keepalive.
var exampleSwaps, exampleClients = fromEnv("EXAMPLE_SWAPS", 3), fromEnv("EXAMPLE_CLIENTS", 16)

func fromEnv(variable string, usual int) int {
	if n, err := strconv.Atoi(os.Getenv(variable)); err == nil && n > 0 {
		return n
	}
	return usual
}

// TestExamples swaps the servers of examples/ under keep-alive clients that POST and do not
// retry: those with a recipe lose nothing.
//
// With INTEGRATION_TABLE=FILE the same servers are swapped without their recipes too, and
// the results are written there as a page.
func TestExamples(t *testing.T) {
	book := &exampleBook{}
	t.Cleanup(func() { book.write(t) })
	made := t.TempDir()
	var rows []row
	for _, x := range examples {
		rows = append(rows, row{x.name, func(t *testing.T, e engine.Engine) { x.run(t, e, made, book) }})
		if os.Getenv("INTEGRATION_TABLE") != "" {
			rows = append(rows, row{x.name + "/plain", func(t *testing.T, e engine.Engine) { x.runPlain(t, e, made, book) }})
		}
	}
	table(t, "docker", rows)
}

// run swaps the example as its Dockerfile has it.
func (x example) run(t *testing.T, e engine.Engine, made string, book *exampleBook) {
	r := x.begin(t, e, x.dockerfile(t), made)
	if r == nil {
		return
	}
	report := r.swaps(x.anonymous)
	if lost := report.Failures(load.Reused); lost > x.lost {
		t.Errorf("%s loses %d requests on kept-alive connections, at most %d are said to be: %s", x.name, lost, x.lost, strings.Join(report.Samples, "\n"))
	}
	book.add(x.name, func(l *exampleLine) { l.version, l.with = r.printed(t), report })
}

// runPlain swaps the server as people have it: how much it loses is what the recipe is for.
func (x example) runPlain(t *testing.T, e engine.Engine, made string, book *exampleBook) {
	plain := x.plain
	plain.name, plain.spare = x.name+"-plain", x.spare
	plain.env = append([]string{exampleQuiet, "ENTRYPOINT_DRAIN_TIMEOUT=10s"}, plain.env...) // some never end by themselves
	x.image = ""
	if r := x.begin(t, e, plain, made); r != nil {
		report := r.swaps(x.anonymous)
		book.add(x.name, func(l *exampleLine) { l.without = report })
	}
}

// exampleQuiet is what the Dockerfiles say too: long enough for a request of a new connection to be answered.
const exampleQuiet = "ENTRYPOINT_DRAIN_QUIET=500ms"

// begin starts the server and the load; nil: it is left out here.
func (x example) begin(t *testing.T, e engine.Engine, k stack, made string) *exampleRun {
	if x.spare && exec.Command(k.build[0], "--version").Run() != nil {
		t.Logf("LEFT OUT: no %s", k.build[0])
		return nil
	}
	r := &exampleRun{stackRun{stack: k, scene: scene{t: t, addr: freeAddress(t), dir: t.TempDir()}}}
	r.made = k.compiled(t, made)
	r.fields = append([]string{examplePort, r.port()}, r.fields...)
	spec := engine.Spec{
		HostTools: true, Files: r.appFiles("g1"), Command: fill(r.command, examplePort, r.port(), "{port}", r.port()),
		Env: append(fill(r.env, examplePort, r.port()), "HOME=/tmp", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "PORT="+r.port()),
	}
	if x.image != "" {
		spec = engine.Spec{Image: x.built(t, e), Env: []string{"PORT=" + r.port()}}
	}
	r.c = startPlain(t, e, spec)
	r.eventually(x.name+" answers", func() error { _, err := load.Ask(r.options(), "/"); return err })
	r.settled()
	r.load = load.Start(context.Background(), r.options())
	t.Cleanup(func() { r.load.Stop() })
	return r
}

// examplePort is the one that all examples say; each gets a port of its own here.
const examplePort = "8080"

// built builds the Dockerfile itself, without any registry.
func (x example) built(t *testing.T, e engine.Engine) string {
	t.Helper()
	daemon := e.(*engine.Docker).Daemon()
	name, base := "example-"+x.name, x.image+"-of-this-machine"
	for _, err := range []error{
		daemon.FileImage(limit(t), "entrypoint", binaries.Entrypoint),
		daemon.ProgramImage(limit(t), base, x.image),
		daemon.Build(limit(t), name, x.folder(), "BASE="+base),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return name
}

func (x example) folder() string { return filepath.Join("..", "examples", x.name) }

// dockerfile reads what is run, and with which files and environment.
func (x example) dockerfile(t *testing.T) stack {
	t.Helper()
	k := stack{name: x.name, version: x.version, build: x.build, from: x.folder(), spare: x.spare, files: x.compiled}
	file, err := os.Open(filepath.Join(x.folder(), "Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		word, rest, _ := strings.Cut(lines.Text(), " ")
		switch word {
		case "COPY":
			k.files = append(k.files, copied(strings.Fields(rest))...)
		case "ENV":
			k.env = append(k.env, rest)
		case "CMD":
			if err := json.Unmarshal([]byte(rest), &k.command); err != nil {
				t.Fatalf("%s: %v", rest, err)
			}
		}
	}
	return k
}

// copied are the files that a COPY puts into /app; those of another stage are what the build makes.
func copied(words []string) []string {
	sources, target := words[:len(words)-1], words[len(words)-1]
	if !strings.HasPrefix(target, "/app/") {
		return nil
	}
	if strings.HasPrefix(sources[0], "--from=build") {
		return []string{"out" + sources[1] + ":" + path.Base(target)}
	}
	return sources
}

// exampleRun is one server under load.
type exampleRun struct{ stackRun }

func (r *exampleRun) options() load.Options {
	return load.Options{
		Address: r.addr, Fresh: 3, Reused: exampleClients, Post: examplePost,
		Pace: 5 * time.Millisecond, Timeout: 10 * time.Second, Duration: time.Minute + time.Duration(exampleSwaps)*patience,
	}
}

// swaps swaps some times, each time waiting for the end of the old generation, and ends the load.
func (r *exampleRun) swaps(anonymous bool) load.Report {
	r.t.Helper()
	r.answered(200)
	for gen := range exampleSwaps {
		r.reload(0)
		if !anonymous {
			if err := r.load.WaitVersion(limit(r.t), fmt.Sprint("g", gen+2)); err != nil {
				r.t.Fatalf("%s: %v", r.name, err)
			}
		}
		st := r.settled()
		if st.Handoff != "transparent" || st.Active != gen+2 || st.Restarts > 0 {
			r.t.Errorf("%s: hand-off %s %s, generation %d after %d swaps and %d restarts", r.name, st.Handoff, st.HandoffWhy, st.Active, gen+1, st.Restarts)
		}
		r.answered(50)
	}
	report := r.load.Stop()
	if report.Failures(load.Fresh) > 0 {
		r.t.Errorf("%s loses requests on new connections: %s\n%s", r.name, report, strings.Join(report.Samples, "\n"))
	}
	r.t.Logf("%s: %d swaps, %d on kept-alive connections, %s", r.name, exampleSwaps, report.OK[load.Reused], report)
	return report
}
