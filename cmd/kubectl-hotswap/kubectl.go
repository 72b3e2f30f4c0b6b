package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync/atomic"
	"time"
)

const (
	// queryTime bounds a call of kubectl that only asks.
	queryTime = time.Minute
	// killTime is how long a kubectl that was told to end may hold on to its output.
	killTime = 2 * time.Second
	// keepErrors is how much of kubectl's standard error is kept.
	keepErrors = 64 << 10
)

// kubectl runs the user's program. It is safe for concurrent use.
type kubectl struct {
	argv []string // the program, and the options that belong to every call
	// answered says that a call has succeeded. From then on kubectl runs in a process group of its own, so that the terminal's interrupt does not reach it:
	// a swap is not to be torn. Before, it may have to ask the user for a password.
	answered atomic.Bool
}

// newKubectl finds the program; override is a path or a command line without quotes.
func newKubectl(o *options, override string) (*kubectl, error) {
	words := []string{"kubectl"}
	if override != "" {
		words = []string{override}
		if _, err := exec.LookPath(override); err != nil { // "microk8s kubectl"
			words = strings.Fields(override)
		}
	}
	if len(words) == 0 {
		return nil, errors.New("$KUBECTL has no word in it")
	}
	path, err := exec.LookPath(words[0])
	if err != nil {
		return nil, fmt.Errorf("cannot find %q: %v; install kubectl, or name it in $KUBECTL", words[0], reason(err))
	}
	k := &kubectl{argv: append([]string{path}, words[1:]...)}
	for _, pair := range [][2]string{{"--kubeconfig", o.kubeconfig}, {"--context", o.context}, {"--namespace", o.namespace}} {
		if pair[1] != "" {
			k.argv = append(k.argv, pair[0]+"="+pair[1])
		}
	}
	return k, nil
}

func reason(err error) error {
	if e := (*exec.Error)(nil); errors.As(err, &e) {
		return e.Err
	}
	return err
}

// answer is what a call of kubectl gave.
type answer struct {
	out  []byte
	errs string
	code int   // of kubectl, which is that of the command in the pod if there was one; -1: it was killed or did not start
	err  error // nil exactly if code is 0
}

// call runs kubectl to its end, or kills it when ctx ends.
func (k *kubectl) call(ctx context.Context, in io.Reader, args ...string) answer {
	cmd := exec.CommandContext(ctx, k.argv[0], append(k.argv[1:len(k.argv):len(k.argv)], args...)...)
	var out bytes.Buffer
	errs := &tailBuffer{most: keepErrors}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in, &out, errs
	cmd.WaitDelay = killTime
	if k.answered.Load() {
		ownGroup(cmd)
	}
	err := cmd.Run()
	a := answer{out: out.Bytes(), errs: errs.String(), code: -1}
	if cmd.ProcessState != nil {
		a.code = cmd.ProcessState.ExitCode()
	}
	switch {
	case ctx.Err() != nil && err != nil:
		a.code, a.err = -1, context.Cause(ctx)
	case a.code == 0:
		k.answered.Store(true) // what Run complains of then is our side of its input: it did not want all of it
	case err != nil:
		a.err = fmt.Errorf("%s", a.sentence(err))
	}
	return a
}

// sentence is the line of standard error that says most.
func (a answer) sentence(err error) string {
	last := ""
	for line := range strings.SplitSeq(a.errs, "\n") {
		line = strings.TrimSpace(line)
		switch {
		case line == "", strings.HasPrefix(line, "Defaulted container"), strings.HasPrefix(line, "command terminated with"):
			continue
		case strings.HasPrefix(line, "Error from server"), strings.HasPrefix(line, "error:"), strings.HasPrefix(line, "entrypoint: "):
			return strings.TrimPrefix(line, "error: ")
		}
		last = line
	}
	if last != "" {
		return last
	}
	return "kubectl: " + err.Error()
}

// get asks for objects and decodes them.
func (k *kubectl) get(ctx context.Context, into any, args ...string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, queryTime, fmt.Errorf("kubectl has not answered within %v", queryTime))
	defer cancel()
	a := k.call(ctx, nil, append([]string{"get", "-o", "json"}, args...)...)
	if a.err != nil {
		return a.err
	}
	if err := json.Unmarshal(a.out, into); err != nil {
		return fmt.Errorf("kubectl get %s: its answer is not understood: %w", strings.Join(args, " "), err)
	}
	return nil
}

// notFound tells the error of an object that is not there from every other.
func notFound(err error) bool { return err != nil && strings.Contains(err.Error(), "(NotFound)") }

// tailBuffer keeps the last bytes that were written.
type tailBuffer struct {
	b    []byte
	most int
}

func (t *tailBuffer) Write(p []byte) (int, error) {
	t.b = append(t.b, p...)
	if len(t.b) > 2*t.most {
		t.b = append(t.b[:0], t.b[len(t.b)-t.most:]...)
	}
	return len(p), nil
}

func (t *tailBuffer) String() string { return string(t.b[max(0, len(t.b)-t.most):]) }
