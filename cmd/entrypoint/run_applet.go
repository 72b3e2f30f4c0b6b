package main

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/hotswap-init/entrypoint/internal/artifact/applet"
)

// isApplet tells whether we were called by the name of an applet, through a link or a copy. The first process of a container
// is the init, whatever its name.
func isApplet(argv0 string, pid int) bool { return pid != 1 && applet.Is(filepath.Base(argv0)) }

// appletGrace is how long an applet may take to clean up after a signal: it removes at most what one upload has staged.
const appletGrace = 5 * time.Second

// runApplet runs tar or rm. A signal that asks it to end looks like an error of its input, so that nothing half done is left.
func runApplet(args []string) int {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer signal.Stop(signals)
	signal.Ignore(syscall.SIGPIPE) // a reader of our output that has gone shows as an error of write(2)
	input, feed := io.Pipe()
	go func() { // ends with the process: a read of standard input cannot be called off
		_, err := io.Copy(feed, os.Stdin)
		feed.CloseWithError(err)
	}()
	code := make(chan int, 1)
	go func() {
		code <- applet.Main(filepath.Base(args[0]), args[1:], input, os.Stdout, os.Stderr, os.Getenv)
	}()
	select {
	case c := <-code:
		return c
	case s := <-signals:
		feed.CloseWithError(fmt.Errorf("ended by the signal %v", s))
		select {
		case <-code:
		case <-time.After(appletGrace):
		}
		return 128 + int(s.(syscall.Signal))
	}
}
