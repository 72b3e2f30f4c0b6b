package swap

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"
)

// rejected is told of a candidate that is refused, before it is ended.
func (s *Supervisor) rejected(g *record, why string) {
	g.Refused, g.Reason = true, why
	s.endDeciding(errEnding)
	sw := s.st.Swap
	s.st.Candidate = 0
	if sw == nil {
		return
	}
	e := Ending{Code: 1}
	if g.Ending != nil {
		e = *g.Ending
	}
	if s.st.Active == 0 && s.st.Served == 0 {
		s.st.Served = g.Number
	}
	r := Result{Code: CodeRejected, Generation: g.Number, Phase: sw.Phase, Text: fmt.Sprintf("generation %d was refused: %s", g.Number, why), Output: g.Output}
	if !g.TriedAt.IsZero() {
		r.Code, r.Text = CodeRolledBack, fmt.Sprintf("generation %d was rolled back: %s", g.Number, why)
	}
	if sw.Request.Cause == causeStart && g.Ending != nil {
		r.Text = fmt.Sprintf("generation %d ended: %s", g.Number, why)
	}
	if s.fallback(r) {
		return
	}
	s.refuse(r, e)
}

// fallback puts back what a sequential swap had stopped.
func (s *Supervisor) fallback(r Result) bool {
	sw := s.st.Swap
	if sw.From == 0 || sw.Fallback || sw.Crash || s.prog == nil || !sw.Sequential || sw.Roll != nil || sw.Request.Kind == Restart || s.st.Mode == modeStopping {
		return false
	}
	s.drop(s.next)
	s.next = s.hold(s.prog)
	sw.Fallback, sw.First = true, &r
	sw.enter("stop")
	s.log.Warn("rejected, starting what ran before", "gen", r.Generation, "why", r.Text)
	return true // release of the refused one proceeds
}

// tend starts workers that the active generation lacks when nobody else does.
func (s *Supervisor) tend() {
	g := s.gen(s.st.Active)
	if s.st.Workers > 1 && s.st.Swap == nil && g != nil && g.State == Active && s.st.Mode != modeStopping {
		s.fill(g, s.st.Workers)
	}
}

// refuse ends a swap without success and lets the policy decide where nothing serves.
func (s *Supervisor) refuse(r Result, e Ending) {
	sw := s.st.Swap
	if s.waitForPlaces(r) {
		return
	}
	switch {
	case sw.Fallback:
		first := *sw.First
		first.Text += "; and what ran before did not start again: " + r.Text
		r = first
	case s.st.Active != 0:
		r.Text += fmt.Sprintf("; generation %d serves on", s.st.Active)
	}
	if sw.Ended != nil {
		s.forget(s.next)
	}
	s.finish(r)
	switch {
	case s.st.Active != 0 || s.st.Swap != nil || s.st.Mode == modeStopping:
	case len(s.st.Command) == 0: // a `run` failed before there was an app: there is nothing to start again, and nothing has ended
		s.setMode(modeWaiting, noCommand)
	case sw.Ended != nil:
		s.fatal(*sw.Ended, sw.Request.Cause+"; and "+r.Text)
	default:
		s.resume(e)
	}
}

// finish ends the swap under way: one record, one line, one answer to everybody; then the remembered one begins.
func (s *Supervisor) finish(r Result) {
	sw := s.st.Swap
	now := time.Now() // one reading for both: the phases add up to the whole
	took := now.Sub(sw.At)
	r.ElapsedMS = took.Milliseconds()
	sw.leave(now)
	record := SwapRecord{
		At: sw.At, Kind: sw.Request.Kind, Cause: sw.Request.Cause, From: sw.From, To: sw.To,
		Code: r.Code, Phase: r.Phase, Text: r.Text, ElapsedMS: r.ElapsedMS, Phases: sw.Phases,
	}
	s.st.LastSwaps = append(s.st.LastSwaps, record)
	s.st.Counters.decided(sw.Request, r.Code, sw.Phases)
	record.Text = cutText(record.Text)
	s.news.publish(News{Kind: NewsSwap, Generation: sw.To, Text: r.Text, Swap: &record})
	if n := len(s.st.LastSwaps); n > keepSwaps {
		s.st.LastSwaps = slices.Delete(s.st.LastSwaps, 0, n-keepSwaps)
	}
	s.logResult(sw, r, took)
	s.tellResult(sw, r)
	s.answerAll(r)
}

// answerAll ends the swap under way for everybody who waits; then the remembered one begins.
func (s *Supervisor) answerAll(r Result) {
	from := s.gen(s.st.Swap.From)
	s.st.Swap = nil
	s.endDeciding(errEnding)
	s.drop(s.next)
	s.next = nil
	for _, w := range s.waiters {
		if w.drained && r.Code == CodeDone && from != nil && from.Number != s.st.Active && from.State != Exited {
			w.decided = r
			s.drains[from.Number] = append(s.drains[from.Number], w)
			continue
		}
		w.finish(r)
	}
	s.waiters = nil
	s.changed()
	s.tend()
	s.follow()
}

// drained answers those who wait for the end of a generation.
func (s *Supervisor) drained(g *record) {
	for _, w := range s.drains[g.Number] {
		s.report(w, Progress{Time: time.Now(), Generation: g.Number, Phase: "drained", Text: g.Exit})
		w.decided.Text += fmt.Sprintf("; generation %d has ended", g.Number)
		w.finish(w.decided)
	}
	delete(s.drains, g.Number)
}

// logResult writes the one line that sums a swap up. It has the hash of the new bytes: where that is being computed still, the line
// follows.
func (s *Supervisor) logResult(sw *swapping, r Result, took time.Duration) {
	level := slog.LevelError
	if g := s.gen(sw.To); r.Code == CodeDone || sw.Request.Cause == causeStart && g != nil && g.Ending != nil && g.Ending.Success() {
		level = slog.LevelInfo // an app that does its work and ends is no failure
	}
	args := []any{"result", resultWord(r.Code), "cause", sw.Request.Cause, "kind", string(sw.Request.Kind), "from", sw.From, "to", sw.To,
		"from_sha256", s.hashOf(sw.From), "code", r.Code, "elapsed", took.Round(time.Microsecond).String(), "phases", phaseTimes(sw.Phases), "why", r.Text}
	if r.Code != CodeDone {
		args = append(args, "phase", r.Phase)
	}
	write := func(sum string) { s.log.Log(context.Background(), level, "swap", append(args, "to_sha256", sum)...) }
	sum, l := s.hashOf(sw.To), s.live[sw.To]
	if sum != "" || l == nil {
		write(sum)
		return
	}
	p := s.hold(l.prog)
	s.summed = append(s.summed, p)
	s.spawn(func() {
		sum, _ := p.Hash(s.ctx) // what cannot be read has none
		if !s.post(func() { s.hashedLate(sw.To, p, sum); write(sum) }) {
			write(sum)
		}
	})
}

// hashedLate gives back a program that was held for its hash.
func (s *Supervisor) hashedLate(n int, p *program, sum string) {
	if i := slices.Index(s.summed, p); i >= 0 {
		s.summed = slices.Delete(s.summed, i, i+1)
		s.drop(p)
	}
	if g := s.gen(n); g != nil && g.SHA256 == "" {
		g.SHA256 = sum
	}
}

// resultWord is the code of a decided swap as a word.
func resultWord(code int) string {
	switch code {
	case CodeDone:
		return "done"
	case CodeRolledBack:
		return "rolled back"
	}
	return "rejected"
}

// hashOf is the SHA-256 of a generation's bytes; "" if there is none, or it is not known yet.
func (s *Supervisor) hashOf(n int) string {
	if l := s.live[n]; l != nil && l.prog != nil && l.prog.sum != "" {
		return l.prog.sum
	}
	if g := s.gen(n); g != nil {
		return g.SHA256
	}
	return ""
}

// phaseTimes is how long each phase took, by its name. A phase that there was twice, as in a swap that put back what ran before, is
// added up.
func phaseTimes(phases []Phase) slog.Value {
	var names []string
	sums := map[string]time.Duration{}
	for _, p := range phases {
		if _, twice := sums[p.Name]; !twice {
			names = append(names, p.Name)
		}
		sums[p.Name] += p.elapsed()
	}
	attrs := make([]slog.Attr, len(names))
	for i, name := range names {
		attrs[i] = slog.String(name, sums[name].Round(time.Microsecond).String())
	}
	return slog.GroupValue(attrs...)
}
