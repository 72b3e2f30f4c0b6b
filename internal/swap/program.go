package swap

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// program is a checked command that several holders share: the candidate, its generation, the place of what is current or
// was before. Only the owner goroutine counts.
type program struct {
	Program
	refs int
	gen  int       // the last generation that was active with it
	sum  string    // SHA-256 once known
	at   time.Time // since when it is, or was, what is current
}

// hold takes a reference.
func (s *Supervisor) hold(p *program) *program {
	p.refs++
	return p
}

// drop gives one back; the last one closes the program. nil is allowed.
func (s *Supervisor) drop(p *program) {
	if p == nil {
		return
	}
	if p.refs--; p.refs == 0 {
		if err := p.Close(); err != nil {
			s.log.Warn("cannot close the program", "path", p.Path(), "err", err)
		}
	}
}

// keep makes p, which generation gen runs, what a restart starts. What was current becomes what a rollback goes back to, unless it
// failed or is itself being rolled back.
func (s *Supervisor) keep(p *program, gen int, failed bool) {
	p.gen = gen
	if s.prog == p {
		return
	}
	old := s.prog
	s.prog = s.hold(p)
	p.at = time.Now()
	if i := slices.Index(s.older, p); i >= 0 {
		s.older = slices.Delete(s.older, i, i+1)
		s.drop(p)
	}
	back := s.st.Swap != nil && s.st.Swap.Request.Kind == Rollback && !s.st.Swap.Fallback
	switch {
	case old == nil:
	case back:
		s.st.Barred = old.sum
		s.drop(old)
	case failed:
		s.drop(old)
	default:
		s.older = slices.Insert(s.older, 0, old) // with its reference
	}
	s.trim()
}

// trim forgets bytes that are there twice, and more of them than are to be kept. While the hash of the newest is not known, one more may stay.
func (s *Supervisor) trim() {
	seen, most := []string{}, max(1, s.opt.Keep)-1
	if s.prog != nil && s.prog.sum != "" {
		seen = append(seen, s.prog.sum)
	} else if most > 0 {
		most++
	}
	s.older = slices.DeleteFunc(s.older, func(p *program) bool {
		if slices.Contains(seen, p.sum) || most == 0 {
			s.drop(p)
			return true
		}
		if p.sum != "" {
			seen = append(seen, p.sum)
		}
		most--
		return false
	})
}

// hashed is told the SHA-256 of the bytes of a generation that became ready.
func (s *Supervisor) hashed(n int, p *program, sum string) {
	p.sum = sum
	if n == firstGeneration {
		s.st.Image = sum
	}
	if g := s.gen(n); g != nil {
		g.SHA256 = sum
		a := g.Artifact
		s.log.Info("artifact", "gen", n, "path", g.Path, "sha256", sum, "size", a.Size, "source", a.Source, "exec", a.Exec, "why", a.Why,
			"verified", a.Verified, "comment", a.Comment, "drift", s.st.Image != "" && sum != s.st.Image)
	}
	s.trim()
}

// firstGeneration is the number of the one that the container starts with.
const firstGeneration = 1

// barred tells whether a file still has bytes that were rolled back; other bytes end that.
func (s *Supervisor) barred(sw *swapping, p *program) (why error, yes bool) {
	if s.st.Barred == "" || sw.Request.Kind == Put || p.sum == "" {
		return nil, false
	}
	if p.sum == s.st.Barred && !sw.Request.Force {
		return fmt.Errorf("cannot swap to %q: it still has the bytes that were rolled back (sha256 %s); put others there, or use `entrypoint reload --force`", p.Path(), short(p.sum)), true
	}
	s.st.Barred = ""
	return nil, false
}

// overtaken tells whether a file that a watch found changed was written before the upload that is active took its place: put swaps first
// and replaces the file then, so that a second put meets the watch's delayed look at the file of the first.
func (s *Supervisor) overtaken(p *program) bool {
	file := p.Facts().Changed
	return s.st.Active != 0 && s.prog != nil && !file.IsZero() && s.prog.Facts().Changed.IsZero() && file.Before(s.prog.at)
}

// short is the part of a hash that people compare.
func short(sum string) string { return sum[:min(12, len(sum))] }

// choose looks for the newest bytes before the present ones that differ from them, on a goroutine: hashes may have to be computed.
func (s *Supervisor) choose() {
	sw, now, older := s.st.Swap, s.prog, slices.Clone(s.older)
	if now == nil || len(older) == 0 {
		s.checked(nil, s.noOlder())
		return
	}
	s.spawn(func() {
		sum, err := now.Hash(s.ctx)
		var found *program
		var faults []error
		for _, p := range older {
			other, e := p.Hash(s.ctx)
			if e == nil {
				e = p.Intact()
			}
			if e == nil && err == nil && other == sum {
				continue
			}
			if e == nil {
				found = p
				break
			}
			faults = append(faults, e)
		}
		s.post(func() { s.chosen(sw, sum, found, errors.Join(faults...)) })
	})
}

// chosen goes on with what choose found, if it is still there.
func (s *Supervisor) chosen(sw *swapping, sum string, p *program, faults error) {
	switch {
	case s.st.Swap != sw:
		s.checkEnd()
	case p == nil && faults != nil:
		s.checked(nil, fmt.Errorf("cannot roll back: %w", faults))
	case p == nil || !slices.Contains(s.older, p):
		s.checked(nil, s.noOlder())
	default:
		if s.prog != nil {
			s.prog.sum = sum
		}
		s.checked(p, nil)
	}
}

// forget drops bytes that a rollback could not go back to; nil: all of them.
func (s *Supervisor) forget(bad *program) {
	s.older = slices.DeleteFunc(s.older, func(p *program) bool {
		if bad == nil || p == bad {
			s.drop(p)
			return true
		}
		return false
	})
}

func (s *Supervisor) noOlder() error {
	if s.opt.Keep < 2 {
		return errors.New("cannot roll back: the bytes of earlier generations are not kept; set ENTRYPOINT_KEEP to 2 or more")
	}
	return errors.New("cannot roll back: no other bytes were active before the present ones")
}

// showBytes fills in what status says of bytes.
func (s *Supervisor) showBytes(st *Status) {
	st.Image, st.Barred = s.st.Image, s.st.Barred
	if s.prog != nil && s.st.Active != 0 {
		st.Drift = s.st.Image != "" && s.prog.sum != "" && s.prog.sum != s.st.Image
	}
	seen := map[*program]bool{}
	count := func(p *program) {
		if p != nil && !seen[p] {
			seen[p] = true
			st.Memory += p.Facts().Memory
		}
	}
	for _, p := range s.older {
		st.Kept = append(st.Kept, Kept{Generation: p.gen, Path: p.Path(), SHA256: p.sum, Artifact: p.Facts()})
		count(p)
	}
	count(s.prog)
	count(s.next)
	for _, l := range s.live {
		count(l.prog)
	}
}
