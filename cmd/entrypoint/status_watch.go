package main

import (
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hotswap-init/entrypoint/internal/control"
	"github.com/hotswap-init/entrypoint/internal/swap"
)

// What is written to a terminal. A page is drawn over the one before, line by line: nothing is cleared that is written again, so
// nothing flickers. It is drawn on the terminal's other screen, so that what was there before is there afterwards.
const (
	screenOpen  = "\x1b[?1049h\x1b[?25l" // the other screen, no cursor
	screenClose = "\x1b[?25h\x1b[?1049l"
	screenHome  = "\x1b[H"
	lineRest    = "\x1b[K" // clears to the end of the line
	screenRest  = "\x1b[J" // clears below
)

// watchStatus shows the status again and again until a signal ends it: on a terminal in place, elsewhere as pages with an empty line
// between them. That the init does not answer is shown and does not end it.
func (c *call) watchStatus(request control.Request, first control.Result, every time.Duration) int {
	ends := make(chan os.Signal, 8)
	signal.Notify(ends, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGTSTP, syscall.SIGWINCH)
	defer signal.Stop(ends)
	ticks := time.NewTicker(every)
	defer ticks.Stop()
	w := &statusWatch{call: c, last: statuses(first)}
	_, rows := terminalSize(c.getenv)
	w.terminal = rows > 0
	w.open()
	answers := make(chan control.Result, 1) // the question that is asked has room for its answer, read or not
	w.show()
	for asking := false; ; {
		select {
		case <-ticks.C:
			if !asking {
				asking = true
				go func() { answers <- c.ask(request) }()
			}
			continue
		case r := <-answers:
			asking = false
			w.answered(r)
			w.show()
		case sig := <-ends:
			if !w.signal(sig) {
				w.close()
				return codeDone
			}
			w.show()
		}
	}
}

// statusWatch is the state of one status --watch.
type statusWatch struct {
	*call
	last     []swap.Status // of each app
	why      string        // there is no newer one
	since    time.Time
	terminal bool
}

// answered takes the answer to one question. Each is asked on a connection of its own, so that nothing has to be repaired when one breaks.
func (w *statusWatch) answered(r control.Result) {
	if r.Code == codeDone && r.Status != nil {
		w.last, w.why = statuses(r), ""
		return
	}
	if w.why == "" {
		w.since = time.Now()
	}
	w.why = sentence(r)
}

// page is the newest that is known, and since when there is nothing newer.
func (w *statusWatch) page(columns int) string {
	text := w.statusText(w.last, columns)
	if w.why != "" {
		text = wrapTo(columns, "no answer", labelWidth, fmt.Sprintf("for %s, what follows is older: %s", age(time.Since(w.since)), w.why)) + text
	}
	return text
}

func (w *statusWatch) show() {
	columns, rows := terminalSize(w.getenv)
	if !w.terminal {
		w.text(w.page(columns) + "\n")
		return
	}
	w.text(frame(w.page(columns), rows))
}

// frame is what draws a page over the one before, cut to the rows of the screen. It is written at once.
func frame(text string, rows int) string {
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	if hidden := len(lines) - rows; rows > 0 && hidden > 0 {
		lines = append(lines[:rows-1], fmt.Sprintf("… %d more lines", hidden+1))
	}
	return screenHome + strings.Join(lines, lineRest+"\r\n") + lineRest + screenRest
}

// signal tells whether the watch goes on.
func (w *statusWatch) signal(s os.Signal) bool {
	switch s {
	case syscall.SIGWINCH:
		return true
	case syscall.SIGTSTP:
		w.close()
		_ = unix.Kill(os.Getpid(), unix.SIGSTOP)
		w.open()
		return true
	}
	return false
}

func (w *statusWatch) open() {
	if w.terminal {
		w.text(screenOpen)
	}
}

// close gives the terminal back as it was, with the last page below what was there.
func (w *statusWatch) close() {
	if w.terminal {
		columns, _ := terminalSize(w.getenv)
		w.text(screenClose + w.page(columns))
	}
}
