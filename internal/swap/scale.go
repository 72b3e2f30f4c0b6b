package swap

import (
	"fmt"
	"slices"

	"github.com/hotswap-init/entrypoint/handoff"
)

// scale changes the number of workers of the active generation, and of those that follow. It is a swap without a candidate.
func (s *Supervisor) scale() {
	sw := s.st.Swap
	g, want, now := s.gen(s.st.Active), sw.Request.Workers, s.st.Workers
	sw.Phase = "scale"
	switch {
	case want == now:
		s.finish(Result{Code: CodeDone, Generation: g.Number, Phase: "scale", Text: fmt.Sprintf("nothing to do: generation %d has %s", g.Number, workersText(now))})
	case want > now:
		s.fill(g, want)
		s.scaled(g)
	default:
		s.scaleDown(g, want)
	}
}

func workersText(n int) string {
	if n == 1 {
		return "1 worker"
	}
	return fmt.Sprintf("%d workers", n)
}

// scaleDown lets the highest workers go, if those that stay serve.
func (s *Supervisor) scaleDown(g *record, want int) {
	l := s.live[g.Number]
	if !slices.ContainsFunc(s.fit(g.Number), func(at handoff.Seat) bool { return at.Worker < want }) {
		s.finish(Result{Code: CodeRejected, Generation: g.Number, Phase: "scale", Text: fmt.Sprintf("cannot scale to %s: those that would stay are being started again", workersText(want))})
		return
	}
	s.st.Workers = want
	n := g.Number
	var leave []*worker
	for k := want; k < len(l.crew); k++ {
		w := l.crew[k]
		s.stopAgain(w)
		switch m := g.Crew[k]; {
		case w.over:
		case m.Alone && m.State != Active:
			if m.State == Starting || m.State == Ready {
				s.fireWorker(n, w, EvStop, "scaled down")
			}
		default:
			s.dismiss(g, w, "scaled down")
			leave = append(leave, w)
		}
	}
	s.respread()
	var numbers []int
	for _, w := range leave {
		numbers = append(numbers, w.k)
		s.fireWorker(n, w, EvSuperseded, "scaled down")
	}
	text := fmt.Sprintf("generation %d has %s", n, workersText(want))
	if len(numbers) > 0 {
		text += fmt.Sprintf("; %s %s", countedText(numbers), map[bool]string{true: "drains", false: "drain"}[len(numbers) == 1])
	}
	s.finish(Result{Code: CodeDone, Generation: n, Text: text})
}

// scaled is told that one more worker serves: with the last one the number holds.
func (s *Supervisor) scaled(g *record) {
	sw := s.st.Swap
	if sw == nil || sw.Request.Kind != Scale || sw.Request.Workers <= s.st.Workers || g.Number != s.st.Active {
		return
	}
	have, want := len(s.fit(g.Number)), sw.Request.Workers
	if have < want {
		if have > 0 {
			s.phase("scale", g.Number, "ready", fmt.Sprintf("%d of %d workers serve", have, want))
		}
		return
	}
	s.st.Workers = want
	s.finish(Result{Code: CodeDone, Generation: g.Number, Text: fmt.Sprintf("generation %d has %s", g.Number, workersText(want))})
}

// unscale ends a scaling that cannot be: the workers that were added go again. k is the one that failed; one that was there before is
// no reason.
func (s *Supervisor) unscale(why string, k int) {
	sw := s.st.Swap
	if sw == nil || sw.Request.Kind != Scale || k < s.st.Workers {
		return
	}
	g := s.gen(s.st.Active)
	now, want := s.st.Workers, sw.Request.Workers
	s.finish(Result{Code: CodeRejected, Generation: s.st.Active, Phase: "scale",
		Text: fmt.Sprintf("cannot scale from %d to %s: %s; generation %d has %s", now, workersText(want), why, s.st.Active, workersText(now))})
	if g == nil || g.State != Active {
		return
	}
	l := s.live[g.Number]
	var leave []*worker
	for k := now; k < len(l.crew); k++ {
		w := l.crew[k]
		s.stopAgain(w)
		switch m := g.Crew[k]; {
		case w.over:
		case m.Alone:
			s.fireWorker(g.Number, w, EvAbort, why)
		default:
			s.dismiss(g, w, why)
			leave = append(leave, w)
		}
	}
	s.respread()
	for _, w := range leave {
		s.fireWorker(g.Number, w, EvSuperseded, why)
	}
}
