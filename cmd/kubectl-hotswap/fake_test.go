package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The tests run the plugin as a process of its own, and so does it a kubectl that is a process too: this test binary under that name, which
// plays the cluster that the file world.json describes and writes down how it was called.

func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "kubectl" {
		os.Exit(playKubectl(os.Args[1:]))
	}
	if os.Getenv("HOTSWAP_ROLE") == "plugin" {
		os.Exit(run(os.Args[1:], os.Getenv, os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

// world is a cluster.
type world struct {
	Pods      []*fakePod
	Arch      map[string]string // of nodes
	Forbidden string            // the kind that may not be seen
	Down      bool              // the API server does not answer
	Selector  string            // of every workload, as JSON
}

// fakePod is a pod with an entrypoint in it.
type fakePod struct {
	Name, UID, Node string
	Owner           string // Kind/Name
	Phase           string
	NotReady        bool
	Deleting        bool
	Restarts        int
	Asked           int // how often for the status
	Containers      []string
	Command         []string
	Annotation      string

	Active, Candidate int
	Sums              []string // by generation, from 1
	Script            string   // what happens at the next change, see play
	Rollback          string   // what happens at a rollback
}

// at runs f on the world, alone.
func at(dir string, f func(*world)) {
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	check(err)
	defer lock.Close()
	check(syscall.Flock(int(lock.Fd()), syscall.LOCK_EX))
	var w world
	text, err := os.ReadFile(filepath.Join(dir, "world.json"))
	check(err)
	check(json.Unmarshal(text, &w))
	f(&w)
	text, err = json.Marshal(w)
	check(err)
	check(os.WriteFile(filepath.Join(dir, "world.json"), text, 0o600))
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

// journal writes a line for the test to read.
func journal(dir, format string, a ...any) {
	f, err := os.OpenFile(filepath.Join(dir, "journal"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	check(err)
	defer f.Close()
	_, err = fmt.Fprintf(f, format+"\n", a...)
	check(err)
}

// playKubectl is the fake's main.
func playKubectl(args []string) int {
	dir := os.Getenv("HOTSWAP_WORLD")
	journal(dir, "call %s", strings.Join(args, " "))
	var w world
	at(dir, func(now *world) { w = *now })
	if w.Down {
		fmt.Fprintln(os.Stderr, "E1121 10:00:00.000000 1 memcache.go:265] couldn't get current server API group list")
		fmt.Fprintln(os.Stderr, "The connection to the server 127.0.0.1:1 was refused - did you specify the right host or port?")
		return 1
	}
	for len(args) > 0 && strings.HasPrefix(args[0], "--") {
		args = args[1:]
	}
	if args[0] == "exec" {
		return playExec(dir, args[1:])
	}
	args = slices.DeleteFunc(slices.Clone(args[1:]), func(a string) bool { return a == "-o" || a == "json" })
	return w.get(args)
}

func (w *world) get(args []string) int {
	kind := args[0]
	if kind == w.Forbidden {
		fmt.Fprintf(os.Stderr, "Error from server (Forbidden): %s is forbidden: User \"dev\" cannot list resource\n", kind)
		return 1
	}
	switch kind {
	case "nodes":
		for _, name := range args[3:] {
			fmt.Printf("%s   %s\n", name, w.Arch[name])
		}
		return 0
	case "pod":
		p := w.pod(args[1])
		if p == nil {
			fmt.Fprintf(os.Stderr, "Error from server (NotFound): pods %q not found\n", args[1])
			return 1
		}
		fmt.Println(p.object())
		return 0
	case "pods":
		var items []string
		for _, p := range w.Pods {
			items = append(items, p.object())
		}
		fmt.Printf(`{"kind":"List","items":[%s]}`, strings.Join(items, ","))
		return 0
	}
	if args[1] != "web" {
		fmt.Fprintf(os.Stderr, "Error from server (NotFound): %ss.apps %q not found\n", kind, args[1])
		return 1
	}
	selector := w.Selector
	if selector == "" {
		selector = `{"matchLabels":{"app":"web"}}`
	}
	fmt.Printf(`{"metadata":{"name":"web","uid":"owner"},"spec":{"selector":%s}}`, selector)
	return 0
}

func (w *world) pod(name string) *fakePod {
	if i := slices.IndexFunc(w.Pods, func(p *fakePod) bool { return p.Name == name }); i >= 0 {
		return w.Pods[i]
	}
	return nil
}

func (p *fakePod) object() string {
	var containers []map[string]any
	for _, name := range p.Containers {
		containers = append(containers, map[string]any{"name": name, "command": p.Command})
	}
	kind, name, _ := strings.Cut(p.Owner, "/")
	ready := "True"
	if p.NotReady {
		ready = "False"
	}
	meta := map[string]any{
		"name": p.Name, "uid": p.UID, "labels": map[string]string{"app": "web", "pod-template-hash": "77"},
		"ownerReferences": []map[string]any{{"kind": kind, "name": name, "uid": "owner", "controller": true}},
	}
	if p.Deleting {
		meta["deletionTimestamp"] = "2026-11-21T10:00:00Z"
	}
	if p.Annotation != "" {
		meta["annotations"] = map[string]string{"kubectl.kubernetes.io/default-container": p.Annotation}
	}
	b, err := json.Marshal(map[string]any{
		"metadata": meta,
		"spec":     map[string]any{"nodeName": p.Node, "containers": containers},
		"status": map[string]any{
			"phase": p.Phase, "conditions": []map[string]string{{"type": "Ready", "status": ready}},
			"containerStatuses": []map[string]any{{"name": p.Containers[0], "containerID": fmt.Sprint("c", p.Restarts), "restartCount": p.Restarts}},
		},
	})
	check(err)
	return string(b)
}

// playExec is `kubectl exec [-i] POD -c CONTAINER -- ENTRYPOINT WORD…`.
func playExec(dir string, args []string) int {
	input := args[0] == "-i"
	if input {
		args = args[1:]
	}
	name, words := args[0], args[slices.Index(args, "--")+2:]
	var p *fakePod
	at(dir, func(w *world) { p = w.pod(name) })
	if p == nil {
		fmt.Fprintf(os.Stderr, "Error from server (NotFound): pods %q not found\n", name)
		return 1
	}
	if words[0] == "status" {
		code := p.status()
		if p.Script == "die-unhashed" {
			at(dir, func(w *world) { w.pod(name).Asked++ })
		}
		return code
	}
	journal(dir, "begin %s %s", name, strings.Join(words, " "))
	code := p.play(dir, input, words)
	journal(dir, "end %s %s", name, words[0])
	if code != 0 {
		fmt.Fprintf(os.Stderr, "Defaulted container \"app\" out of: app, log\ncommand terminated with exit code %d\n", code)
	}
	return code
}

func (p *fakePod) status() int {
	if p.Script == "no-init" {
		fmt.Fprintln(os.Stderr, `error: Internal error occurred: error executing command in container: exec: "/entrypoint": stat /entrypoint: no such file or directory`)
		return 126
	}
	var generations []map[string]any
	for i, sum := range p.Sums {
		if p.Script == "die-unhashed" && i+1 == p.Active && p.Active > 1 && p.Asked < 3 {
			sum = ""
		}
		generations = append(generations, map[string]any{"gen": i + 1, "sha256": sum})
	}
	b, err := json.Marshal(map[string]any{
		"schema": 1, "state": "serving", "active": p.Active, "candidate": p.Candidate, "generations": generations, "drift": p.Active > 1, "more": "is skipped",
	})
	check(err)
	fmt.Println(string(b))
	return 0
}

// answer prints what a command says with --json.
func reply(code, gen int, text string) int {
	b, err := json.Marshal(map[string]any{"event": "result", "v": 1, "code": code, "gen": gen, "text": text, "elapsed_ms": 3})
	check(err)
	fmt.Println(string(b))
	return code
}

// promote makes sum the program of a new generation of a pod.
func swapIn(dir, name, sum string) (gen int) {
	at(dir, func(w *world) {
		p := w.pod(name)
		p.Sums = append(p.Sums, sum)
		p.Active = len(p.Sums)
		gen = p.Active
	})
	return gen
}

// play does what the script of the pod says at a change.
func (p *fakePod) play(dir string, input bool, words []string) int {
	script, sum := p.Script, strings.Repeat("f", 64)
	switch words[0] {
	case "abort":
		return reply(1, 0, "nothing to abort: no swap is under way")
	case "promote":
		return reply(0, p.Active, "")
	case "rollback":
		script, sum = p.Rollback, p.Sums[max(p.Active-2, 0)]
	case "put":
		if script == "die-first" {
			return 1 // before anything arrived
		}
		h := sha256.New()
		if n, err := io.Copy(h, os.Stdin); err != nil || n == 0 || !input {
			return reply(1, 0, "nothing came on standard input")
		}
		sum = hex.EncodeToString(h.Sum(nil))
		if words[slices.Index(words, "--sha256")+1] != sum {
			return reply(1, 0, "its sha256 is "+sum)
		}
	}
	switch script {
	case "reject":
		return reply(1, p.Active+1, "generation 2 exited with code 3 before it was ready")
	case "busy":
		return reply(3, p.Active+1, "busy: generation 2 is starting")
	case "took-back":
		return reply(5, p.Active+1, "rolled back: a health check failed")
	case "waits-no-more":
		return reply(124, p.Active+1, "no longer waited for")
	case "die", "die-unhashed": // when the pod has done it, and before it could say so
		swapIn(dir, p.Name, sum)
		check(syscall.Kill(os.Getpid(), syscall.SIGKILL))
	case "garbage":
		swapIn(dir, p.Name, sum)
		fmt.Println(`{"event":"resu`)
		return 0
	case "vanish":
		at(dir, func(w *world) { w.Pods = slices.DeleteFunc(w.Pods, func(q *fakePod) bool { return q.Name == p.Name }) })
		fmt.Fprintln(os.Stderr, "error: error reading from error stream: unexpected EOF")
		return 1
	case "renew": // a StatefulSet makes it again under the same name
		at(dir, func(w *world) { w.pod(p.Name).UID = "new" })
		return 1
	case "restart":
		at(dir, func(w *world) { w.pod(p.Name).Restarts++ })
		return 137
	case "hang":
		journal(dir, "hangs %s", p.Name)
		time.Sleep(time.Hour)
	case "slow":
		await(filepath.Join(dir, "release"))
	case "other": // somebody else swaps right afterwards
		gen := swapIn(dir, p.Name, sum)
		swapIn(dir, p.Name, "other")
		return reply(0, gen, "generation 2 is active")
	}
	gen := swapIn(dir, p.Name, sum)
	return reply(0, gen, fmt.Sprintf("generation %d is active", gen))
}

// await waits for a file, for a minute at most.
func await(file string) {
	for range 6000 {
		if _, err := os.Stat(file); err == nil {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	panic("nobody made " + file)
}

// newWorld is a cluster with a Deployment of so many pods, each with a script.
func newWorld(scripts ...string) *world {
	w := &world{Arch: map[string]string{"node-a": "amd64", "node-b": "amd64"}}
	for i, script := range scripts {
		w.Pods = append(w.Pods, &fakePod{
			Name: fmt.Sprintf("web-77-%d", i+1), UID: fmt.Sprintf("uid-%d", i+1), Node: []string{"node-a", "node-b"}[i%2], Owner: "ReplicaSet/web-77", Phase: "Running",
			Containers: []string{"app", "log"}, Active: 1, Sums: []string{strings.Repeat("a", 64)}, Script: script,
		})
	}
	return w
}

// lines are those of the journal that begin with a word.
func (p *play) lines(word string) []string {
	p.t.Helper()
	text, err := os.ReadFile(filepath.Join(p.dir, "journal"))
	if err != nil && !os.IsNotExist(err) {
		p.t.Fatal(err)
	}
	var all []string
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), word+" "); ok {
			all = append(all, rest)
		}
	}
	return all
}

// state is the pod as the cluster has it now.
func (p *play) state(name string) (pod *fakePod) {
	at(p.dir, func(w *world) { pod = w.pod(name) })
	return pod
}

// elfFor is a file that begins as a program for a machine: enough for all that is read of it.
func elfFor(machine byte) []byte {
	b := bytes.Repeat([]byte{0}, 4096)
	copy(b, []byte{0x7f, 'E', 'L', 'F', 2, 1, 1})
	b[16], b[18], b[20], b[52] = 2, machine, 1, 64
	copy(b[64:], slices.Collect(maps.Keys(map[byte]bool{machine: true})))
	return b
}
