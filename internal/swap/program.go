package swap

// program is a checked command that several holders share: the candidate, its generation, the place of what is current.
// Only the owner goroutine counts.
type program struct {
	Program
	refs int
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

// keep makes p what a restart starts.
func (s *Supervisor) keep(p *program) {
	if s.prog == p {
		return
	}
	old := s.prog
	s.prog = s.hold(p)
	s.drop(old)
}
