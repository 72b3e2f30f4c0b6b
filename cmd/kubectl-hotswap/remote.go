package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// status is what is read of `entrypoint status --json`.
type status struct {
	State       string    `json:"state"`
	Active      int       `json:"active"`
	Candidate   int       `json:"candidate"`
	Drift       bool      `json:"drift"`
	StartedAt   time.Time `json:"started_at"`
	Generations []struct {
		Number int    `json:"gen"`
		SHA256 string `json:"sha256"`
	} `json:"generations"`
	LastSwaps []struct {
		Cause string    `json:"cause"`
		Text  string    `json:"text"`
		At    time.Time `json:"at"`
	} `json:"last_swaps"`
}

// sum is the hash of what is active; empty: not known yet.
func (s *status) sum() string {
	for _, g := range s.Generations {
		if g.Number == s.Active {
			return g.SHA256
		}
	}
	return ""
}

// result is what is read of what a command in a pod says with --json.
type result struct {
	Event      string `json:"event"`
	Code       int    `json:"code"`
	Generation int    `json:"gen"`
	Phase      string `json:"phase"`
	Text       string `json:"text"`
	Output     string `json:"output"`
	NotSaved   string `json:"not_saved"`
}

// exec runs the entrypoint in a pod.
func (s *session) exec(ctx context.Context, p pod, in io.Reader, words ...string) answer {
	args := []string{"exec"}
	if in != nil {
		args = append(args, "-i")
	}
	args = append(args, p.name, "-c", p.container, "--", p.entrypoint)
	return s.kubectl.call(ctx, in, append(args, words...)...)
}

// ask is a question of a pod that is answered at once.
func (s *session) ask(ctx context.Context, p pod) (*status, []byte, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, queryTime, fmt.Errorf("no answer within %v", queryTime))
	defer cancel()
	a := s.exec(ctx, p, nil, "status", "--json")
	if a.err != nil {
		if r, ok := decode(a.out); ok && r.Text != "" {
			return nil, nil, errors.New(r.Text)
		}
		return nil, nil, missing(p, a.err)
	}
	var st status
	if err := json.Unmarshal(a.out, &st); err != nil {
		return nil, nil, fmt.Errorf("the answer of %s is not understood: %v", p.entrypoint, err)
	}
	return &st, a.out, nil
}

// missing puts what container runtimes say of a program that is not there into words.
func missing(p pod, err error) error {
	text := err.Error()
	for _, part := range []string{"no such file or directory", "executable file not found", "not found in $PATH", "command not found"} {
		if strings.Contains(text, part) {
			return fmt.Errorf("there is no %s in container %q; name its path with --entrypoint, or the container with -c", p.entrypoint, p.container)
		}
	}
	return err
}

// decode takes the one object that a command with --json prints. Not ok means that the command in the pod has not spoken.
func decode(out []byte) (r result, ok bool) {
	err := json.Unmarshal(out, &r)
	return r, err == nil && r.Event == "result"
}

// guardTime is what an entrypoint that answers in time may need beyond the time that it was given.
const guardTime = 5 * time.Second

// errTimeUp is the end of --timeout.
var errTimeUp = errors.New("timed out")

// change asks a pod for a swap and waits for its answer. Not ok means that none came: err says why, and what became of it is not known.
func (s *session) change(ctx context.Context, p pod, in io.Reader, words ...string) (r result, ok bool, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, s.options.timeout+guardTime, errTimeUp)
	defer cancel()
	a := s.exec(ctx, p, in, words...)
	if r, ok = decode(a.out); ok {
		return r, true, nil
	}
	if a.err == nil {
		a.err = fmt.Errorf("the answer of %s is not understood", p.entrypoint)
	}
	return result{}, false, missing(p, a.err)
}
