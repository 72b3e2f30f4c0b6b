package swap

import (
	"context"
	"os"
)

// Status gives a copy of what is known. It blocks only for the owner's turn.
func (s *Supervisor) Status(ctx context.Context) (Status, error) {
	var st Status
	if err := s.ask(ctx, func() { st = s.snapshot() }); err != nil {
		return Status{}, err
	}
	st.PID = os.Getpid()
	st.Sockets = s.opt.Launcher.Held()
	st.NotHeld = s.opt.Launcher.NotHeld()
	s.showFront(&st)
	st.Reaped = s.opt.Launcher.Reaped()
	if d, ok := s.opt.Launcher.(interface{ DroppedLines() int64 }); ok {
		st.LogDropped = d.DroppedLines()
	}
	return st, nil
}
