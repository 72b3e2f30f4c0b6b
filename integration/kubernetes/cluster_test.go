//go:build kubernetes

package kubernetes

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"text/template"
	"time"

	"github.com/hotswap-init/entrypoint/integration/load"
)

// patience is how long a test waits for anything that the cluster does. The machine may be busy; nothing waits for it on a good day.
const patience = 90 * time.Second

// scene is a namespace of the cluster with one workload, and its load.
type scene struct {
	t         *testing.T
	ns        string
	app       string // the label of its pods, and the name of its Service and Deployment
	container string // of the app in them
	binary    string // the path of the init in it
	dir       string // of stamped binaries
	load      *load.Load
}

var scenes atomic.Int64

// newScene makes a namespace, and removes it after the test. Labels are words of `kubectl label`.
func newScene(t *testing.T, labels ...string) *scene {
	t.Helper()
	s := &scene{
		t: t, ns: fmt.Sprintf("test-%d-%d", os.Getpid(), scenes.Add(1)), app: "web", container: "app", binary: "/entrypoint", dir: t.TempDir(),
	}
	s.must("create", "namespace", s.ns)
	if len(labels) > 0 {
		s.must(append([]string{"label", "namespace", s.ns}, labels...)...)
	}
	t.Cleanup(s.end)
	s.eventually("pods can be made", func() error {
		_, err := s.kubectl("get", "serviceaccount", "default")
		return err
	})
	return s
}

func (s *scene) end() {
	if s.load != nil {
		s.load.Stop()
	}
	if s.t.Failed() {
		s.t.Logf("what the cluster knows:\n%s", s.described())
	}
	s.must("delete", "namespace", s.ns, "--wait=false")
	s.must("delete", "pods", "--all", "--grace-period=1", "--wait=false")
}

func (s *scene) described() string {
	var all strings.Builder
	for _, args := range [][]string{
		{"get", "pods", "-o", "wide"}, {"get", "events", "--sort-by=.lastTimestamp"},
		{"logs", "--selector=app", "--all-containers", "--prefix", "--tail=40", "--ignore-errors"},
	} {
		code, out, errs := s.run(nil, args...)
		fmt.Fprintf(&all, "kubectl %s: %d\n%s%s", strings.Join(args, " "), code, out, errs)
	}
	for _, args := range [][]string{{"ip", "-s", "neigh"}, {"ip", "route"}, {"cat", "/proc/net/stat/nf_conntrack"}} {
		out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
		fmt.Fprintf(&all, "%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return all.String()
}

// command prepares kubectl in the scene's namespace.
func (s *scene) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(programs, "kubectl"), append([]string{"--namespace", s.ns}, args...)...)
	cmd.Env = []string{"KUBECONFIG=" + kubeconfig, "HOME=" + home, "PATH=" + home + ":" + programs + ":" + os.Getenv("PATH")}
	cmd.WaitDelay = time.Second
	return cmd
}

// run runs kubectl to its end. A command that is executed in a container gives its exit code.
func (s *scene) run(in io.Reader, args ...string) (code int, out, errs string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := s.command(ctx, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in, &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		s.t.Fatalf("kubectl %q: %v", args, err)
	}
	if ctx.Err() != nil {
		s.t.Fatalf("kubectl %q: not within %v: %s%s", args, patience, &stdout, &stderr)
	}
	return cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()
}

func (s *scene) kubectl(args ...string) (string, error) {
	s.t.Helper()
	code, out, errs := s.run(nil, args...)
	if code != 0 {
		return out, fmt.Errorf("kubectl %q: %d: %s%s", args, code, out, errs)
	}
	return out, nil
}

// must is kubectl that has to succeed.
func (s *scene) must(args ...string) string {
	s.t.Helper()
	out, err := s.kubectl(args...)
	if err != nil {
		s.t.Error(err)
		if args[0] != "delete" {
			s.t.FailNow()
		}
	}
	return out
}

func (s *scene) apply(manifest string) {
	s.t.Helper()
	if code, out, errs := s.run(strings.NewReader(manifest), "apply", "-f", "-"); code != 0 {
		s.t.Fatalf("kubectl apply: %d: %s%s\n%s", code, out, errs, manifest)
	}
}

func (s *scene) eventually(what string, ok func() error) {
	s.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		err := ok()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("not within %v: %s: %v", patience, what, err)
		}
	}
}

// workload is a Deployment and a Service of the same name, web. The zero value of each field is the plain case.
type workload struct {
	Replicas  int               // 1
	Image     string            // localhost/app:v1
	Env       map[string]string // of the app's container
	Container string            // more lines of the app's container
	Pod       string            // more lines of the pod
	Others    string            // more containers
	Delete    int               // terminationGracePeriodSeconds; 30
}

var manifest = template.Must(template.New("").Funcs(template.FuncMap{"indent": func(n int, text string) string {
	return strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n"+strings.Repeat(" ", n))
}}).Parse(`
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: {{.Replicas}}
  selector: {matchLabels: {app: web}}
  strategy: {rollingUpdate: {maxUnavailable: 0, maxSurge: 1}}
  template:
    metadata: {labels: {app: web, swapped: together}}
    spec:
      terminationGracePeriodSeconds: {{.Delete}}
      {{indent 6 .Pod}}
      containers:
      - name: app
        image: {{.Image}}
        imagePullPolicy: Never
        env: [{{range $k, $v := .Env}}{name: {{$k}}, value: {{printf "%q" $v}}}, {{end}}]
        {{indent 8 .Container}}
      {{indent 6 .Others}}
`))

// knownPort is for pods that are made while clients ask: see TestSlowStart.
const knownPort = "tcp://127.0.0.1:8080"

// probed is the readiness probe of most workloads here. Its patience is for a machine that is busy.
const probed = "readinessProbe: {exec: {command: [/entrypoint, health]}, periodSeconds: 1, timeoutSeconds: 20}\n"

func (s *scene) deploy(w workload) {
	s.t.Helper()
	w.Replicas, w.Image, w.Delete = max(w.Replicas, 1), cmp.Or(w.Image, "localhost/app:v1"), cmp.Or(w.Delete, 30)
	var text strings.Builder
	if err := manifest.Execute(&text, w); err != nil {
		s.t.Fatal(err)
	}
	s.apply(text.String())
	s.rolledOut("web")
}

func (s *scene) rolledOut(name string) {
	s.t.Helper()
	s.must("rollout", "status", "deployment/"+name, "--timeout="+patience.String())
}

// pod is what the cluster tells of one.
type pod struct {
	Metadata struct {
		Name              string
		DeletionTimestamp string
	}
	Status struct {
		PodIP             string
		Phase             string
		ContainerStatuses []struct {
			Name         string
			Ready        bool
			RestartCount int
			ContainerID  string
		}
	}
}

// pods are those that are not on their way out.
func (s *scene) pods() []pod {
	s.t.Helper()
	var list struct{ Items []pod }
	if err := json.Unmarshal([]byte(s.must("get", "pods", "--selector=app="+s.app, "-o", "json")), &list); err != nil {
		s.t.Fatal(err)
	}
	var live []pod
	for _, p := range list.Items {
		if p.Metadata.DeletionTimestamp == "" {
			live = append(live, p)
		}
	}
	return live
}

func (s *scene) names() []string {
	s.t.Helper()
	var names []string
	for _, p := range s.pods() {
		names = append(names, p.Metadata.Name)
	}
	return names
}

// restarts fails the test unless every pod's app container was restarted so often.
func (s *scene) restarts(want int) {
	s.t.Helper()
	pods := s.pods()
	if len(pods) == 0 {
		s.t.Error("there is no pod")
	}
	for _, p := range pods {
		for _, c := range p.Status.ContainerStatuses {
			if c.Name == s.container && c.RestartCount != want {
				s.t.Errorf("%s was restarted %d times, want %d", p.Metadata.Name, c.RestartCount, want)
			}
		}
	}
}

// exec runs a command in the app's container of a pod and wants this exit code.
func (s *scene) exec(pod string, want int, argv ...string) string {
	s.t.Helper()
	return s.execWith(pod, want, nil, argv...)
}

// execWith is exec with an input; it returns both outputs.
func (s *scene) execWith(pod string, want int, in io.Reader, argv ...string) string {
	s.t.Helper()
	args := []string{"exec", pod, "-c", s.container}
	if in != nil {
		args = append(args, "-i")
	}
	code, out, errs := s.run(in, append(append(args, "--"), argv...)...)
	if code != want {
		s.t.Fatalf("%q in %s: exit code %d, want %d\n%s%s", argv, pod, code, want, out, errs)
	}
	return out + errs
}

// status is what a program outside reads from `status --json`.
type status struct {
	State       string
	Active      int
	PID         int
	Drift       bool
	Image       string `json:"image_sha256"`
	Handoff     string
	HandoffWhy  string `json:"handoff_why"`
	Generations []struct {
		Gen    int
		State  string
		SHA256 string
	}
	LastSwaps []struct {
		Cause    string
		From, To int
		Code     int
	} `json:"last_swaps"`
}

func (s *scene) status(pod string) status {
	s.t.Helper()
	var st status
	if err := json.Unmarshal([]byte(s.exec(pod, 0, s.binary, "status", "--json")), &st); err != nil {
		s.t.Fatal(err)
	}
	return st
}

// hashed is the status once the hashes of the active bytes and of the image's are known: they are read after the swap.
func (s *scene) hashed(pod string) (st status) {
	s.t.Helper()
	s.eventually("the bytes have a hash", func() error {
		if st = s.status(pod); st.running() == "" || st.Image == "" {
			return errors.New("they have none yet")
		}
		return nil
	})
	return st
}

// running is the hash of what serves.
func (st status) running() string {
	for _, g := range st.Generations {
		if g.Gen == st.Active {
			return g.SHA256
		}
	}
	return "none"
}

// swaps counts the swaps that were tried, without the first start.
func (st status) swaps() int {
	n := 0
	for _, r := range st.LastSwaps {
		if r.From > 0 {
			n++
		}
	}
	return n
}

// active returns an error until that generation is the active one.
func (s *scene) active(pod string, want int) error {
	s.t.Helper()
	if got := s.status(pod).Active; got != want {
		return fmt.Errorf("generation %d is active, want %d", got, want)
	}
	return nil
}

// stamp makes the app's binary of a version and returns its file and its hash.
func (s *scene) stamp(version string, more ...string) (file, hash string) {
	s.t.Helper()
	file = filepath.Join(s.dir, "server-"+version)
	if err := binaries.Stamp(file, strings.Join(append([]string{"version=" + version + settings}, more...), " ")); err != nil {
		s.t.Fatal(err)
	}
	return file, hashOf(s.t, file)
}

func hashOf(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// put uploads a file to the app of a pod and wants this exit code.
func (s *scene) put(pod, file string, want int, options ...string) string {
	s.t.Helper()
	f, err := os.Open(file)
	if err != nil {
		s.t.Fatal(err)
	}
	defer f.Close()
	return s.execWith(pod, want, f, append([]string{s.binary, "put"}, options...)...)
}

// clients are those of underLoad.
func (s *scene) clients() load.Options {
	s.t.Helper()
	return load.Options{
		Address: s.must("get", "service", s.app, "-o", "jsonpath={.spec.clusterIP}") + ":80",
		Fresh:   3, Slow: 1, Reused: 3, SlowPath: "/slow?ms=60", Pace: 5 * time.Millisecond, Timeout: 15 * time.Second, Duration: 10 * time.Minute,
	}
}

// underLoad starts clients of the Service: such with a connection for each request, and such that keep theirs. Every pod serves then.
func (s *scene) underLoad() {
	s.t.Helper()
	o := s.clients()
	for _, p := range s.pods() {
		s.eventually(p.Metadata.Name+" answers", func() error { _, err := load.Ask(load.Options{Address: p.Status.PodIP + ":8080"}, "/"); return err })
	}
	s.eventually("the service answers", func() error { _, err := load.Ask(o, "/"); return err })
	s.load = load.Start(context.Background(), o)
	s.answered(50)
}

// answered waits until the load got so many more answers.
func (s *scene) answered(n int) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := s.load.WaitRequests(ctx, n); err != nil {
		s.t.Fatalf("the load gets no answers: %v: %v", err, s.load.Report().Samples)
	}
}

// answeredBy waits until the load got an answer of a version.
func (s *scene) answeredBy(version string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := s.load.WaitVersion(ctx, version); err != nil {
		s.t.Fatal(err)
	}
}

// lossless ends the load and fails the test for every lost request, also for those on connections that were kept: this app says
// in time that it closes them.
func (s *scene) lossless() load.Report {
	s.t.Helper()
	r := s.load.Stop()
	s.load = nil
	if r.Failures(load.Fresh, load.Slow, load.Reused) > 0 || r.OK[load.Fresh] == 0 || r.OK[load.Slow] == 0 || r.OK[load.Reused] == 0 {
		s.t.Errorf("lost: %s\n%s", r, strings.Join(r.Samples, "\n"))
	}
	s.t.Logf("%s", r)
	return r
}

// log is what the app's container of a pod wrote.
func (s *scene) log(pod string) string {
	s.t.Helper()
	return s.must("logs", pod, "-c", s.container)
}

// waitLog waits until the app's container wrote so many lines with that text.
func (s *scene) waitLog(pod, text string, n int) {
	s.t.Helper()
	s.eventually(fmt.Sprintf("%q is %d times in the log", text, n), func() error {
		if got := strings.Count(s.log(pod), text); got != n {
			return fmt.Errorf("%d times", got)
		}
		return nil
	})
}
