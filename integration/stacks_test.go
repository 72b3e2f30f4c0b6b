//go:build integration

package integration

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hotswap-init/entrypoint/integration/engine"
	"github.com/hotswap-init/entrypoint/integration/load"
)

// stack is a server as people run it: it binds its own port and knows nothing of us.
// In its command and files {port} is the port, and {version} what it should answer. A
// file with {version} is put anew before each swap; all others answer with the number
// of their generation.
type stack struct {
	name    string
	version string   // a shell command that prints the server's version, with {out} as in build
	build   []string // made once, into a folder {out}: what the app's files beginning with "out/" come from
	from    string   // the folder of its files and its build; default: testdata/stacks
	files   []string // "name" of that folder, for /app; "name:path" for another place below /app
	fields  []string // further fields of the files, old, new, old, new, …
	command []string
	env     []string
	path    string // of a page; default: /
	slow    string // of a page that takes 200 ms; none: the server has no such thing
	talk    talk   // another protocol than HTTP
	pid     bool   // answers with its pid, because it cannot tell its generation
	spare   bool   // left out where its compiler is not installed
	caveat  string
}

// shape is how a container is run.
type shape struct {
	name  string
	means string
	spec  engine.Spec
	rows  int // so many of the stacks are run in it; 0: all
	swaps int // of each row
}

// shapes differ in what the container may do. The last one says little that the others do not: fewer rows.
var shapes = []shape{
	{name: "root", means: "root, with the capabilities and the seccomp profile that Docker gives by default", swaps: serverSwaps},
	{name: "hardened", means: "an unprivileged user, no capabilities, `no-new-privileges`, a read-only root with a writable `/tmp`", swaps: serverSwaps,
		spec: engine.Spec{User: "65534:65534", DropCaps: true, ReadOnly: true, Tmp: true}},
	{name: "user", means: "an unprivileged user, the rest as by default", swaps: serverSwaps, rows: 13, spec: engine.Spec{User: "1000:1000"}},
}

// TestStacks swaps servers that bind by themselves under load, each in every shape: no
// connection may be refused, reset or lost, though nothing is configured.
//
// With INTEGRATION_TABLE=FILE the results are written there as a page. With
// INTEGRATION_HANDOFF=none each server is only started and swapped once, without a load
// and one generation after the other: it shows that the rows themselves are sound.
func TestStacks(t *testing.T) {
	made := t.TempDir()
	book := &ledger{}
	t.Cleanup(func() { book.write(t) })
	var rows []row
	for _, form := range shapes {
		for i, k := range stacks {
			if form.rows == 0 || i < form.rows {
				rows = append(rows, row{k.name + "/" + form.name, func(t *testing.T, e engine.Engine) {
					k.run(t, e, form, made, book)
				}})
			}
		}
	}
	table(t, "docker", rows)
}

func (k stack) run(t *testing.T, e engine.Engine, form shape, made string, book *ledger) {
	if k.spare && exec.Command(k.build[0], "--version").Run() != nil {
		t.Logf("LEFT OUT: no %s", k.build[0])
		return
	}
	r := &stackRun{stack: k, scene: scene{t: t, addr: freeAddress(t), dir: t.TempDir()}, form: form}
	r.made = k.compiled(t, made)
	r.begin(e)
	if os.Getenv("INTEGRATION_HANDOFF") == "none" {
		r.inSequence()
		return
	}
	r.swapUnderLoad()
	book.add(r)
}

// compilers runs each build once for all shapes.
var compilers sync.Map

// compiled is the folder with what the stack's build makes.
func (k stack) compiled(t *testing.T, made string) string {
	t.Helper()
	dir := filepath.Join(made, k.name)
	if k.build == nil {
		return dir
	}
	once, _ := compilers.LoadOrStore(dir, sync.OnceValue(func() error { return compile(k.build, k.folder(), dir) }))
	if err := once.(func() error)(); err != nil {
		t.Fatalf("%s does not compile: %v", k.name, err)
	}
	return dir
}

func (k stack) folder() string { return cmp.Or(k.from, filepath.Join("testdata", "stacks")) }

func compile(command []string, source, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	args := fill(command, "{out}", dir)
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir = source
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// fill replaces fields in each text.
func fill(texts []string, fields ...string) []string {
	replacer := strings.NewReplacer(fields...)
	filled := make([]string, len(texts))
	for i, text := range texts {
		filled[i] = replacer.Replace(text)
	}
	return filled
}

// stackRun is one row in one shape.
type stackRun struct {
	stack
	scene
	form   shape
	made   string
	report load.Report
	took   []time.Duration // of each swap
}

func (r *stackRun) port() string {
	_, port, _ := strings.Cut(r.addr, ":")
	return port
}

// begin starts the container and waits for the first answer.
func (r *stackRun) begin(e engine.Engine) {
	r.t.Helper()
	spec := r.form.spec
	spec.HostTools = true
	spec.Command = fill(r.command, "{port}", r.port())
	spec.Files = r.appFiles("g1")
	spec.Env = append([]string{
		"ENTRYPOINT_STOP_SIGNAL=KILL", backToBack, "HOME=/tmp", "PORT=" + r.port(),
	}, r.env...)
	if mode := os.Getenv("INTEGRATION_HANDOFF"); mode != "" {
		spec.Env = append(spec.Env, "ENTRYPOINT_HANDOFF="+mode)
	}
	r.c = startPlain(r.t, e, spec)
	r.answers(1)
	r.settled() // a reload before the first generation counts as ready would be "busy"
}

// appFiles are the files of the app, with their fields filled in.
func (r *stackRun) appFiles(version string) map[string]string {
	r.t.Helper()
	files := map[string]string{}
	for _, name := range r.files {
		source, target, ok := strings.Cut(name, ":")
		if !ok {
			target = filepath.Base(source)
		}
		files["/app/"+target] = r.filled(source, version)
	}
	return files
}

// filled is a file with its fields filled in. What was compiled is taken as it is.
func (r *stackRun) filled(name, version string) string {
	r.t.Helper()
	if compiled, ok := strings.CutPrefix(name, "out/"); ok {
		return filepath.Join(r.made, compiled)
	}
	source := filepath.Join(r.folder(), name)
	text, err := os.ReadFile(source)
	must(&r.scene, err)
	info, err := os.Stat(source)
	must(&r.scene, err)
	fields := append([]string{"{port}", r.port(), "{version}", version}, r.fields...)
	target := filepath.Join(r.dir, name)
	must(&r.scene, os.WriteFile(target, []byte(strings.NewReplacer(fields...).Replace(string(text))), info.Mode()))
	return target
}

// release puts the files anew that tell the version.
func (r *stackRun) release(version string) {
	r.t.Helper()
	for target, file := range r.appFiles(version) {
		text, err := os.ReadFile(file)
		must(&r.scene, err)
		if strings.Contains(string(text), version+" served") {
			must(&r.scene, r.c.Put(file, target))
		}
	}
}

// options are those of the load.
func (r *stackRun) options() load.Options {
	o := load.Options{
		Address: r.addr, Fresh: 3, Path: r.path, Talk: r.talk,
		Pace: 5 * time.Millisecond, Timeout: 10 * time.Second, Duration: 10 * time.Minute,
	}
	if r.slow != "" {
		o.Slow, o.SlowPath = 2, r.slow
	}
	return o
}

// expected is what a generation answers.
func (r *stackRun) expected(gen int) (string, error) {
	if !r.pid {
		return fmt.Sprint("g", gen), nil
	}
	st, err := r.status()
	if err != nil {
		return "", err
	}
	for _, g := range st.Generations {
		if g.Gen == gen && g.PID > 0 {
			return strconv.Itoa(g.PID), nil
		}
	}
	return "", fmt.Errorf("no process of generation %d in %+v", gen, st)
}

// pages are the paths that can be asked.
func (r *stackRun) pages() []string {
	pages := []string{cmp.Or(r.path, "/")}
	if r.slow != "" {
		pages = append(pages, r.slow)
	}
	return pages
}

// answers waits until a generation answers all pages, without any load.
func (r *stackRun) answers(gen int) {
	r.t.Helper()
	r.eventually(fmt.Sprintf("generation %d of %s answers", gen, r.name), func() error {
		want, err := r.expected(gen)
		if err != nil {
			return err
		}
		for _, path := range r.pages() {
			if err := r.ask(path, want); err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
		}
		return nil
	})
}

// slowEnough is less than 200 ms because the clocks of timers are coarse.
const slowEnough = 150 * time.Millisecond

// ask makes one request; the slow page has to be slow.
func (r *stackRun) ask(path, want string) error {
	begun := time.Now()
	got, err := load.Ask(r.options(), path)
	took := time.Since(begun)
	switch {
	case err != nil:
		return err
	case got != want:
		return fmt.Errorf("%q answers, want %q", got, want)
	case path == r.slow && took < slowEnough:
		return fmt.Errorf("the slow page took only %v", took)
	}
	return nil
}

// inSequence swaps once while nobody is there to lose anything.
func (r *stackRun) inSequence() {
	r.release("g2")
	r.reload(0)
	r.answers(2)
	r.settled()
}

func (r *stackRun) swapUnderLoad() {
	r.load = load.Start(context.Background(), r.options())
	r.t.Cleanup(func() { r.load.Stop() })
	r.answered(20)
	for i := range r.form.swaps {
		r.swap(i + 2)
	}
	r.held()
	r.answered(20)
	r.report = r.load.Stop()
	if r.report.Failures(load.Fresh, load.Slow) > 0 {
		r.t.Errorf("%s lost: %s\n%s", r.name, r.report, strings.Join(r.report.Samples, "\n"))
	}
	r.t.Logf("%s: %d swaps, median %v, %s", r.name, len(r.took), r.median(), r.report)
}

// held waits for the end of all old generations, and looks at how they were replaced.
func (r *stackRun) held() {
	r.t.Helper()
	st := r.settled()
	if st.Handoff != "transparent" || len(st.NotHeld) > 0 || len(st.swaps()) == 0 {
		r.t.Errorf("%s: hand-off %s %s, not held %v, %d swaps", r.name, st.Handoff, st.HandoffWhy, st.NotHeld, len(st.swaps()))
	}
	for _, swap := range st.swaps() {
		if swap.Code != 0 || swap.To != swap.From+1 {
			r.t.Errorf("%s: swap %+v", r.name, swap)
		}
	}
	if st.Restarts > 0 || st.Active != r.form.swaps+1 {
		r.t.Errorf("%s: generation %d after %d swaps and %d restarts", r.name, st.Active, r.form.swaps, st.Restarts)
	}
}

// swap is one swap, whose generation has to be seen by the load.
func (r *stackRun) swap(gen int) {
	r.t.Helper()
	r.release(fmt.Sprint("g", gen))
	begun := time.Now()
	r.reload(0)
	r.took = append(r.took, time.Since(begun))
	want, err := r.expected(gen)
	must(&r.scene, err)
	if err := r.load.WaitVersion(limit(r.t), want); err != nil {
		r.t.Fatalf("%s: swap to generation %d: %v, failed: %s", r.name, gen, err, r.load.Report().FailedText())
	}
}

// median of the swap times, each with the time of `docker exec`.
func (r *stackRun) median() time.Duration {
	sorted := slices.Sorted(slices.Values(r.took))
	return sorted[len(sorted)/2].Round(time.Millisecond)
}
