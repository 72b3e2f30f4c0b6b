package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"
)

// session is one use of the plugin. Its fields are set before anything runs; notes and standard error are guarded by mu.
type session struct {
	options     *options
	kubectl     *kubectl
	program     *program      // push
	signature   string        // push
	interrupted chan struct{} // closed by the first interrupt

	mu    sync.Mutex
	err   io.Writer
	notes []string
}

var errInterrupted = errors.New("interrupted")

// watchInterrupts makes the first interrupt end the going on, and the second one the waiting. The function that it returns ends it.
func (s *session) watchInterrupts(cancel context.CancelCauseFunc) (stop func()) {
	signals, ended, gone := make(chan os.Signal, 2), make(chan struct{}), make(chan struct{})
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		defer close(gone)
		for n := 0; ; n++ {
			select {
			case <-ended:
				return
			case <-signals:
			}
			switch n {
			case 0:
				close(s.interrupted)
				if s.options.changes() {
					s.say("interrupted: no further pod is touched; once more to leave the one under way to itself")
				} else {
					cancel(errInterrupted)
				}
			case 1:
				cancel(errInterrupted)
			}
		}
	}()
	return func() { signal.Stop(signals); close(ended); <-gone }
}

// note is said at the end, below the table.
func (s *session) note(format string, a ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.notes = append(s.notes, fmt.Sprintf(format, a...))
}

// say is progress.
func (s *session) say(format string, a ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.options.json {
		fmt.Fprintln(s.err, printable(fmt.Sprintf(format, a...)))
	}
}

// run does all of it and returns what is to be shown.
func (s *session) run(ctx context.Context) *report {
	rep := &report{Action: s.options.action, Target: s.options.target()}
	rep.Code, rep.Text = s.fill(ctx, rep)
	s.mu.Lock()
	defer s.mu.Unlock()
	rep.Notes = s.notes
	return rep
}

func (s *session) fill(ctx context.Context, rep *report) (code int, text string) {
	if s.options.action == "push" {
		if code, err := s.open(); err != nil {
			return code, err.Error()
		}
		defer s.program.file.Close()
		rep.SHA256 = s.program.sum
	}
	pods, err := s.pods(ctx)
	if err != nil {
		return codeNoInit, err.Error()
	}
	if len(pods) == 0 {
		return codeNoInit, "no pod belongs to " + s.options.target()
	}
	if i := slices.IndexFunc(pods, func(p pod) bool { return !p.hasContainer }); i >= 0 {
		return codeUsage, fmt.Sprintf("%s has no container %q: it has %q", pods[i].name, pods[i].container, pods[i].containers)
	}
	for _, p := range pods {
		rep.Pods = append(rep.Pods, &row{pod: p, Pod: p.name, Node: p.node, Container: p.container, Result: untouched})
	}
	if s.options.action == "status" {
		return s.inspect(ctx, rep)
	}
	serving := 0
	for _, r := range rep.Pods {
		if r.pod.notServing != "" {
			r.skip(r.pod.notServing)
			continue
		}
		serving++
	}
	if serving == 0 {
		return codeNoInit, "no pod of " + s.options.target() + " is Ready"
	}
	if code, text := s.fits(ctx, rep); code != codeDone {
		return code, text
	}
	if s.options.dryRun {
		code, text := s.inspect(ctx, rep)
		return code, cmp.Or(text, "nothing was changed")
	}
	return s.roll(ctx, rep)
}

// open reads what push is to send.
func (s *session) open() (code int, err error) {
	o := s.options
	if o.signature != "" {
		if s.signature, err = readSignature(o.signature); err != nil {
			return codeUsage, err
		}
	}
	if s.program, err = openProgram(o.file); err != nil {
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) {
			return codeUsage, err
		}
		return codeRejected, err
	}
	if o.sha256 != "" && o.sha256 != s.program.sum {
		s.program.file.Close()
		return codeRejected, fmt.Errorf("%q has the sha256 %s, not the one of --sha256: no pod was touched", o.file, s.program.sum)
	}
	return codeDone, nil
}

// fits refuses a program for other machines than the pods are on, before the first of them is touched.
func (s *session) fits(ctx context.Context, rep *report) (code int, text string) {
	if s.program == nil {
		return codeDone, ""
	}
	var serving []pod
	for _, r := range rep.Pods {
		if r.Result == untouched {
			serving = append(serving, r.pod)
		}
	}
	arch := s.architectures(ctx, serving)
	for _, r := range rep.Pods {
		if node := arch[r.pod.node]; r.Result == untouched && s.program.foreign(node) {
			r.refuse(codeRejected, fmt.Sprintf("node %s is %s, and the program is built for %s", r.Node, node, s.program.arch))
			text = cmp.Or(text, fmt.Sprintf("%s is on a node of another machine (%s): no pod was touched; build it for %s", r.Pod, node, node))
		}
	}
	if text != "" {
		return codeRejected, text
	}
	return codeDone, ""
}

// inspect asks all pods what they run, and changes nothing.
func (s *session) inspect(ctx context.Context, rep *report) (code int, text string) {
	var wg sync.WaitGroup
	tokens := make(chan struct{}, 8)
	for _, r := range rep.Pods {
		if r.Result != untouched || r.pod.notServing != "" && s.options.dryRun {
			continue
		}
		tokens <- struct{}{}
		wg.Go(func() {
			defer func() { <-tokens }()
			s.inspectPod(ctx, r)
		})
	}
	wg.Wait()
	for _, r := range rep.Pods {
		if r.Code != codeDone {
			code, text = codeNoInit, cmp.Or(text, fmt.Sprintf("%s: %s", r.Pod, r.Text))
		}
	}
	return code, text
}

func (s *session) inspectPod(ctx context.Context, r *row) {
	st, raw, err := s.ask(ctx, r.pod)
	if err != nil {
		r.refuse(codeNoInit, err.Error())
		return
	}
	r.Before, r.After = st.Active, st.Active
	r.HashBefore, r.Hash = st.sum(), st.sum()
	if !s.options.dryRun {
		r.Result, r.Status = st.State, raw
		r.Text = st.sentence(r.pod)
		return
	}
	r.Result = would
	if s.program != nil && st.sum() == s.program.sum && !s.options.force {
		r.Result, r.Text = unchanged, "these bytes run already"
	}
	if st.Candidate != 0 {
		r.Text = fmt.Sprintf("busy now: generation %d is a candidate", st.Candidate)
	}
}
