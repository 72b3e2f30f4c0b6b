package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"
)

// roll swaps the pods, so many at once, until one is not done or the user interrupts. What is under way then is waited for.
func (s *session) roll(ctx context.Context, rep *report) (code int, text string) {
	halt := make(chan struct{})
	stop := sync.OnceFunc(func() { close(halt) })
	tokens := make(chan struct{}, s.options.most)
	var wg sync.WaitGroup
	for _, r := range rep.Pods {
		if r.Result != untouched {
			continue
		}
		select {
		case tokens <- struct{}{}:
		case <-s.interrupted:
		case <-halt:
		}
		if ended(halt) || ended(s.interrupted) {
			break
		}
		wg.Go(func() {
			defer func() { <-tokens }()
			s.swap(ctx, r)
			if r.Code != codeDone && !s.all() {
				stop()
			}
		})
	}
	wg.Wait()
	code, text = s.verdict(rep)
	if s.options.undo && ended(halt) && code != codeDone {
		return s.undo(ctx, rep, code, text)
	}
	s.newcomers(ctx, rep)
	return code, text
}

// all tells that an action goes to every pod, also behind one that refuses: it is no risk, and has no order.
func (s *session) all() bool { return s.options.action == "promote" || s.options.action == "abort" }

func ended(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// verdict is the code and the sentence of all pods together.
func (s *session) verdict(rep *report) (code int, text string) {
	n := map[string]int{}
	var worst *row
	for _, r := range rep.Pods {
		n[r.Result]++
		if r.Code != codeDone && worst == nil {
			worst = r
		}
	}
	left := ""
	if n[untouched] > 0 {
		left = fmt.Sprintf("; not touched: %d of %d", n[untouched], len(rep.Pods))
	}
	switch {
	case worst != nil:
		return worst.Code, fmt.Sprintf("%s: %s%s", worst.Pod, worst.Text, left)
	case n[gone]+n[skipped] == len(rep.Pods):
		return codeNoInit, "no pod was left to touch"
	case n[untouched] > 0:
		return codeTimeout, "interrupted" + left
	}
	return codeDone, ""
}

// swap does the action in one pod and fills its row.
func (s *session) swap(ctx context.Context, r *row) {
	begin := time.Now()
	defer func() {
		r.Seconds = time.Since(begin).Round(time.Millisecond).Seconds()
		s.say("%s", r.line())
	}()
	p, ok := s.still(ctx, r)
	if !ok {
		return
	}
	r.pod = p
	st, _, err := s.ask(ctx, p)
	if err != nil {
		s.noAnswer(ctx, r, err, codeNoInit)
		return
	}
	r.Before, r.After = st.Active, st.Active
	r.HashBefore, r.Hash = st.sum(), st.sum()
	if s.program != nil && st.sum() == s.program.sum && !s.options.force {
		r.Result, r.Text = unchanged, "these bytes run already"
		return
	}
	s.say("%s: %s, generation %d is active", r.Pod, s.options.action, r.Before)
	res, ok, err := s.change(ctx, p, s.input(), s.command()...)
	if !ok {
		s.lost(ctx, r, err)
		return
	}
	s.answered(ctx, r, res)
}

// still looks at the pod right before it is touched. Not ok means that its row is filled.
func (s *session) still(ctx context.Context, r *row) (p pod, ok bool) {
	p, err := s.look(ctx, r.Pod)
	switch {
	case notFound(err), err == nil && p.uid != r.pod.uid:
		s.vanished(r, "it is not there any more")
	case err != nil:
		r.refuse(codeNoInit, err.Error())
	case p.notServing != "" && s.options.kind == "pod":
		r.refuse(codeNoInit, p.notServing)
	case p.notServing != "":
		r.skip(p.notServing)
	default:
		return p, true
	}
	return p, false
}

// vanished is no fault of the rest, unless the user named this very pod.
func (s *session) vanished(r *row, text string) {
	r.Result, r.Text, r.open = gone, text, false
	if s.options.kind == "pod" {
		r.Code = codeNoInit
	}
}

// command is what is run in the pod.
func (s *session) command() []string {
	o := s.options
	words := []string{o.action, "--json"}
	switch o.action {
	case "push":
		words = []string{"put", "--json", "--sha256", s.program.sum}
		if s.signature != "" {
			words = append(words, "--signature-text", s.signature)
		}
	case "reload":
		if o.force {
			words = append(words, "--force")
		}
	case "promote":
		if o.full {
			words = append(words, "--full")
		}
		return words
	case "abort":
		return words
	}
	if o.wait != "" {
		words = append(words, "--wait", o.wait)
	}
	return append(words, "--timeout", o.timeout.String())
}

// input is what it reads, for each pod from the beginning.
func (s *session) input() io.Reader {
	if s.program == nil {
		return nil
	}
	return io.NewSectionReader(s.program.file, 0, s.program.size)
}

// answered fills the row from an answer of the pod.
func (s *session) answered(ctx context.Context, r *row, res result) {
	if r.Phase, r.Output = res.Phase, res.Output; res.Code != codeDone {
		if resultOf[res.Code] == "" || res.Code == codeUsage { // 2 is said of our own usage only
			res.Code = codeRejected
		}
		r.refuse(res.Code, cmp.Or(res.Text, "it did not say why"))
		r.open = res.Code == codeTimeout
		return
	}
	r.Result, r.Text, r.After = done, res.Text, res.Generation
	if res.NotSaved != "" && !strings.Contains(res.NotSaved, "read-only file system") { // which is as it should be, and the same everywhere
		s.note("%s: %s", r.Pod, res.NotSaved)
	}
	if s.program != nil {
		r.Hash = s.program.sum
		return
	}
	if st, _, err := s.ask(ctx, r.pod); err == nil {
		r.After, r.Hash = st.Active, st.sum()
	}
}

// settleTime is how long a pod whose answer was lost is asked what became of it. settlePause lies between two questions.
const (
	settleTime  = 30 * time.Second
	settlePause = 500 * time.Millisecond
)

// lost finds out what became of a swap whose answer did not come: kubectl was killed, the line broke, the container ended.
func (s *session) lost(ctx context.Context, r *row, why error) {
	code := codeNoInit
	r.open = true
	if errors.Is(why, errTimeUp) || errors.Is(why, errInterrupted) {
		code = codeTimeout
	}
	if ctx.Err() != nil { // the user does not want to wait
		r.refuse(code, "interrupted: the "+s.options.action+" goes on in the pod")
		return
	}
	p, err := s.look(ctx, r.Pod)
	switch {
	case notFound(err), err == nil && p.uid != r.pod.uid:
		s.vanished(r, "it went away meanwhile")
		return
	case err == nil && p.containerID != r.pod.containerID:
		r.refuse(codeNoInit, fmt.Sprintf("its container was restarted meanwhile (%d restarts) and runs the program of its image", p.restarts))
		r.open = false
		return
	}
	s.settle(ctx, r, why, code)
}

// settle asks until no candidate is left, and it is known whose bytes are active.
func (s *session) settle(ctx context.Context, r *row, why error, code int) {
	ctx, cancel := context.WithTimeoutCause(ctx, settleTime, errTimeUp)
	defer cancel()
	for {
		st, _, err := s.ask(ctx, r.pod)
		over := err == nil && st.Candidate == 0 && st.State != "swapping"
		if over && (s.program == nil || st.Active <= r.Before || st.sum() != "") {
			s.settled(r, st, why, code)
			return
		}
		select {
		case <-ctx.Done():
			switch {
			case err != nil:
				s.noAnswer(context.WithoutCancel(ctx), r, why, code)
				return
			case over:
				s.settled(r, st, why, code)
				return
			}
			r.After = st.Active
			r.refuse(codeTimeout, fmt.Sprintf("%v; generation %d is still a candidate, and the swap goes on", why, st.Candidate))
			return
		case <-time.After(settlePause):
		}
	}
}

func (s *session) settled(r *row, st *status, why error, code int) {
	r.After, r.Hash, r.open = st.Active, st.sum(), false
	if st.Active > r.Before && (s.program == nil || st.sum() == s.program.sum) {
		r.Result, r.Text = done, fmt.Sprintf("generation %d is active (its answer was lost: %v)", st.Active, why)
		return
	}
	r.refuse(code, fmt.Sprintf("%v; generation %d serves on", why, st.Active))
}

// noAnswer is a pod that cannot be asked: perhaps because it is gone.
func (s *session) noAnswer(ctx context.Context, r *row, why error, code int) {
	if p, err := s.look(ctx, r.Pod); notFound(err) || err == nil && p.uid != r.pod.uid {
		s.vanished(r, "it went away meanwhile")
		return
	}
	r.refuse(code, why.Error())
}

// undo puts the pods back that were swapped, the last one first.
func (s *session) undo(ctx context.Context, rep *report, code int, text string) (int, string) {
	back, kept := 0, 0
	for _, r := range slices.Backward(rep.Pods) {
		swapped := r.Result == done
		if r.open {
			var known bool
			swapped, known = s.abort(ctx, r)
			switch {
			case !known:
				kept++
				continue
			case !swapped:
				r.Result, r.Text = undone, fmt.Sprintf("aborted: generation %d serves on", r.After)
				back++
			}
		}
		switch {
		case !swapped:
		case s.putBack(ctx, r):
			back++
		default:
			kept++
		}
	}
	switch {
	case kept > 0:
		return code, fmt.Sprintf("%s; not put back: %d", text, kept)
	case back > 0:
		return codeRolledBack, fmt.Sprintf("%s; put back: %d", text, back)
	}
	return code, text
}

// abort cancels what may still be under way in a pod. It reports whether the pod has a new generation all the same, if that can be known.
func (s *session) abort(ctx context.Context, r *row) (swapped, known bool) {
	_, _, _ = s.change(ctx, r.pod, nil, "abort", "--json") // that there was nothing to abort is well
	st, _, err := s.ask(ctx, r.pod)
	if err != nil {
		r.Text += fmt.Sprintf("; cannot see whether it was aborted: %v", err)
		return false, false
	}
	r.After, r.Hash = st.Active, st.sum()
	return st.Active > r.Before, true
}

// putBack rolls a pod back to what it had, unless somebody else has swapped it since.
func (s *session) putBack(ctx context.Context, r *row) bool {
	ok, why := s.rollBack(ctx, r)
	r.Undone = &ok
	if ok {
		r.Result, r.Text = undone, why
	} else {
		r.Result, r.Text = notUndone, why
	}
	s.say("%s", r.line())
	return ok
}

func (s *session) rollBack(ctx context.Context, r *row) (ok bool, text string) {
	st, _, err := s.ask(ctx, r.pod)
	switch {
	case err != nil:
		return false, err.Error()
	case st.Active != r.After:
		return false, fmt.Sprintf("generation %d is active by now, not generation %d of this %s", st.Active, r.After, s.options.action)
	}
	res, answered, err := s.change(ctx, r.pod, nil, "rollback", "--json", "--timeout", s.options.timeout.String())
	switch {
	case !answered:
		return false, err.Error()
	case res.Code != codeDone:
		return false, res.Text
	}
	r.After, r.Hash = res.Generation, r.HashBefore
	return true, res.Text
}

// newcomers notes pods that were made while the others were swapped: they have the program of their image.
func (s *session) newcomers(ctx context.Context, rep *report) {
	if s.options.action != "push" && s.options.action != "rollback" || s.options.kind == "pod" || ended(s.interrupted) {
		return
	}
	notes := len(s.notes)
	pods, err := s.pods(ctx)
	s.notes = s.notes[:notes]
	if err != nil {
		return
	}
	for _, p := range pods {
		if !slices.ContainsFunc(rep.Pods, func(r *row) bool { return r.pod.uid == p.uid }) {
			s.note("%s came meanwhile and runs the program of its image", p.name)
		}
	}
}
