package graceful

import (
	"context"
	"math/rand/v2"
	"time"
)

// Jitter is a random time from 0 to spread, without spread itself. 0 for a spread that is not positive.
func Jitter(spread time.Duration) time.Duration {
	if spread <= 0 {
		return 0
	}
	return rand.N(spread)
}

// WaitDraining blocks until the drain has begun and a random part of spread has passed after it, then it returns nil; or
// until ctx ends, then it returns the cause. Each of ten thousand WebSockets that says good-bye after it does so in
// a moment of its own, and their clients do not come back all at once. Keep spread well below the hammer time.
func WaitDraining(ctx context.Context, spread time.Duration) error {
	return std.waitDraining(ctx, spread)
}

func (p *process) waitDraining(ctx context.Context, spread time.Duration) error {
	select {
	case <-p.draining:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	timer := time.NewTimer(Jitter(spread))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
