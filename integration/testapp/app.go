package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// app is one running instance.
type app struct {
	settings
	generation string
	sockets    *sockets
	http       *http.Server
	draining   atomic.Bool
	signals    chan os.Signal
	eaten      [][]byte
	crashed    chan int
	seenBy     witness
	answer     atomic.Int64 // the status of every page
	healthNow  atomic.Int64 // the status of /healthz
	starving   atomic.Bool  // the watchdog is not fed any more
	accepting  sync.WaitGroup
	open       sync.Map // connections that were accepted and neither closed nor hijacked

	mu   sync.Mutex
	seen []string // names of the signals received, in order
}

func newApp(s settings) *app {
	a := &app{
		settings:   s,
		generation: cmp.Or(os.Getenv("ENTRYPOINT_GENERATION"), "0"),
		sockets:    &sockets{},
		signals:    make(chan os.Signal, 4096),
		crashed:    make(chan int, 1),
	}
	a.answer.Store(int64(s.status))
	a.healthNow.Store(int64(s.health))
	a.http = &http.Server{Handler: a.judged(a.routes()), Protocols: protocols(), ConnState: a.changed}
	return a
}

// say prints one line about this instance; tests wait for such lines.
func (a *app) say(format string, args ...any) {
	fmt.Printf("testapp %s pid %d gen %s: %s\n", a.version, os.Getpid(), a.generation, fmt.Sprintf(format, args...))
}

// catchSignals begins to record every signal that a Go program can be told of. The
// runtime's own SIGURG and the deaths of children are left out.
func (a *app) catchSignals() {
	signal.Notify(a.signals)
	signal.Reset(syscall.SIGURG, syscall.SIGCHLD, syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU)
}

// boot does what the settings want before any socket is touched.
func (a *app) boot() {
	for i := range a.lines {
		fmt.Printf("boot line %d of %d of %s\n", i+1, a.lines, a.version)
	}
	if a.orphans > 0 {
		leaveOrphans(a.orphans, a.orphan)
	}
	time.Sleep(a.settings.boot)
	a.takeMemory(a.eat)
	if a.gorge > 0 {
		hungry := make(chan os.Signal, 1)
		signal.Notify(hungry, syscall.SIGUSR2)
		go func() {
			<-hungry
			a.takeMemory(a.gorge)
		}()
	}
}

func (a *app) takeMemory(mib int) {
	for range mib {
		a.eaten = append(a.eaten, bytes.Repeat([]byte{1}, 1<<20))
	}
}

func (a *app) openSockets() (err error) {
	a.sockets, err = openAll(a.listen)
	return err
}

// serve begins to answer on every socket and returns.
func (a *app) serve() {
	if a.deaf {
		a.say("accepts nothing as told")
		return
	}
	a.serveOn(a.sockets)
	if a.reopen > 0 {
		time.AfterFunc(a.reopen, func() {
			a.sockets.closeStreams()
			a.serveMore(a.listen)
		})
	}
	if a.later != "" {
		time.AfterFunc(a.after, func() { a.serveMore(a.later) })
	}
}

func (a *app) serveOn(s *sockets) {
	for _, l := range s.streams {
		a.accepting.Go(func() { a.http.Serve(l) })
	}
	for _, c := range s.packets {
		go a.echo(c)
	}
}

// serveMore opens sockets while others are served.
func (a *app) serveMore(listen string) {
	s, err := openAll(listen)
	if err != nil {
		a.say("cannot open %s: %v", listen, err)
		return
	}
	a.sockets.join(s)
	a.serveOn(s)
	a.say("opened %s", listen)
}

// echo answers every datagram with "VERSION PID GENERATION " and the datagram.
func (a *app) echo(c net.PacketConn) {
	buf := make([]byte, 2048)
	for {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			return
		}
		c.WriteTo(append([]byte(a.name()+" "), buf[:n]...), from)
	}
}

func (a *app) name() string {
	return fmt.Sprintf("%s %d %s", a.version, os.Getpid(), a.generation)
}

func (a *app) crashLater() {
	time.AfterFunc(a.crash, func() {
		a.say("crashes as told")
		a.crashed <- a.crashCode
	})
}

// await runs until a stop signal or a crash and returns the exit code.
func (a *app) await() int {
	for {
		select {
		case code := <-a.crashed:
			return die(code)
		case sig := <-a.signals:
			a.record(sig)
			if sig != syscall.SIGTERM && sig != syscall.SIGINT {
				continue
			}
			a.hold("term")
			switch a.term {
			case "ignore":
				a.say("ignores %s as told", sig)
			case "now":
				return a.exit
			default:
				a.drainAll()
				return a.exit
			}
		}
	}
}

func (a *app) record(sig os.Signal) {
	number := int(sig.(syscall.Signal))
	a.mu.Lock()
	a.seen = append(a.seen, fmt.Sprint(number))
	a.mu.Unlock()
	a.say("signal %d", number)
}

// drainAll ends the service in the order that was measured to lose no request:
// tell keep-alive clients to go, close the listeners, serve what is still on its
// way, then wait for the rest.
func (a *app) drainAll() {
	a.draining.Store(true)
	a.sockets.closeStreams()
	if a.linger > 0 {
		time.Sleep(a.linger)
		a.leaves()
	}
	ctx, cancel := context.WithTimeout(context.Background(), a.drain)
	defer cancel()
	a.http.Shutdown(ctx)
	a.say("drained")
}

// changed keeps the list of open connections.
func (a *app) changed(c net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		a.open.Store(c, true)
	case http.StateClosed, http.StateHijacked:
		a.open.Delete(c)
	}
}

// leaves waits until every client has had its last answer, and is gone: what it asks after the call of Shutdown gets no answer. Whoever
// is silent for 2 s is not waited for.
func (a *app) leaves() {
	a.accepting.Wait() // whoever was accepted is in the list
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		none := true
		a.open.Range(func(_, _ any) bool { none = false; return false })
		if none {
			return
		}
	}
}

// die exits with a code, or for a negative one dies of that signal.
func die(code int) int {
	if code >= 0 {
		return code
	}
	signal.Reset()
	syscall.Kill(os.Getpid(), syscall.Signal(-code))
	time.Sleep(5 * time.Second)
	return 99
}

// leaveOrphans starts n processes whose parent is gone when it returns.
func leaveOrphans(n int, life time.Duration) {
	exec.Command("/proc/self/exe", "tool", "orphans", fmt.Sprint(n), life.String()).Run()
}
