package graceful

import (
	"context"
	"errors"
	"os"
	"strconv"
	"time"
)

// Watchdog says WATCHDOG=1 at half the interval that the manager asked for in WATCHDOG_USEC, as long as check returns nil (a
// nil check always holds), and blocks until ctx ends; then it returns nil. A check that fails skips the ping, so the manager
// acts once the interval is over; a check that hangs does the same. It returns nil at once if no pings are asked for, or
// of another process (WATCHDOG_PID). The error tells that WATCHDOG_USEC is no number.
//
// The first Server pings by itself, without a check, unless Watchdog was called before. Call it only once.
func Watchdog(ctx context.Context, check func() error) error {
	interval, err := watchdogInterval(os.Getenv, os.Getpid())
	if err != nil || interval == 0 {
		return err
	}
	std.takeWatchdog()
	std.ping(ctx, interval, check)
	return nil
}

// watchdogInterval is how long the manager waits for a ping; 0 if it does not.
func watchdogInterval(getenv func(string) string, pid int) (time.Duration, error) {
	value := getenv("WATCHDOG_USEC")
	if value == "" {
		return 0, nil
	}
	if want := getenv("WATCHDOG_PID"); want != "" && want != strconv.Itoa(pid) {
		return 0, nil
	}
	usec, err := strconv.ParseInt(value, 10, 64)
	if err != nil || usec <= 0 || usec > int64(1<<63-1)/int64(time.Microsecond) {
		return 0, errors.New("WATCHDOG_USEC " + strconv.Quote(value) + " is no number of microseconds")
	}
	return time.Duration(usec) * time.Microsecond, nil
}

// takeWatchdog claims the pings; true for the first.
func (p *process) takeWatchdog() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	first := !p.watched
	p.watched = true
	return first
}

func (p *process) ping(ctx context.Context, interval time.Duration, check func() error) {
	tick := time.NewTicker(max(interval/2, time.Millisecond))
	defer tick.Stop()
	for {
		if check == nil || check() == nil {
			_ = p.notify.send("WATCHDOG=1") // a manager that misses it acts; nobody else can
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
