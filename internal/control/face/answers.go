package face

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/hotswap-init/entrypoint/internal/swap"
)

// face answers requests with what PID 1 says.
type face struct {
	link      *link
	proc      string // /proc
	heartbeat time.Duration
	counts    censuses
}

// answer is the one entry for requests. It blocks for PID 1's answer, at most some seconds.
func (f *face) answer(ctx context.Context, r *http.Request) reply {
	switch r.URL.Path {
	case "/livez":
		return f.livez(ctx)
	case "/readyz":
		return f.readyz(ctx)
	case "/events":
		return f.events(r)
	case "/metrics", "/status", "/":
		facts, err := f.link.Facts(ctx)
		if err != nil {
			return plain(http.StatusServiceUnavailable, err.Error())
		}
		return f.show(r, facts)
	}
	return plain(http.StatusNotFound, "there are /, /metrics, /livez, /readyz, /status and /events")
}

func (f *face) show(r *http.Request, facts *Facts) reply {
	switch r.URL.Path {
	case "/metrics":
		return metrics(r.Header, facts, f.connections)
	case "/status":
		return status(facts)
	}
	news, _, at, _ := f.link.board.read(place{})
	return page(&view{Facts: facts, Conns: f.connections(facts), News: news, At: at, Now: time.Now()})
}

// connections counts those of an app's addresses.
func (f *face) connections(of *Facts) map[string]int {
	return f.counts.of(of.App).take(&of.Status, f.proc)
}

func metrics(header http.Header, facts *Facts, conns func(*Facts) map[string]int) reply {
	open := wantsOpenMetrics(strings.Join(header.Values("Accept"), ","))
	kind := typeText
	if open {
		kind = typeOpenMetrics
	}
	return reply{code: http.StatusOK, kind: kind, body: encode(ofAll(facts, conns), open), header: [][2]string{{"Vary", "Accept"}}}
}

// status is what `entrypoint status --json` writes.
func status(f *Facts) reply {
	var v any = &f.Status
	if len(f.Others) > 0 {
		apps := []*swap.Status{&f.Status}
		for _, o := range f.Others {
			apps = append(apps, &o.Status)
		}
		v = map[string]any{"schema": f.Status.Schema, "apps": apps}
	}
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return plain(http.StatusInternalServerError, "internal error: "+err.Error())
	}
	return reply{code: http.StatusOK, kind: "application/json", body: append(b, '\n')}
}

func (f *face) livez(ctx context.Context) reply {
	if _, err := f.link.Health(ctx); err != nil {
		return plain(http.StatusServiceUnavailable, err.Error())
	}
	return plain(http.StatusOK, "alive")
}

func (f *face) readyz(ctx context.Context) reply {
	h, err := f.link.Health(ctx)
	switch {
	case err != nil:
		return plain(http.StatusServiceUnavailable, "not ready: "+err.Error())
	case !h.OK:
		return plain(http.StatusServiceUnavailable, "not ready: "+oneLine(h.Why))
	}
	return plain(http.StatusOK, "ready")
}

// oneLine keeps what an app may have said in one line.
func oneLine(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "\ufffd"))
}

// events is a stream of server-sent events: from behind the one named by Last-Event-ID, or by ?after=; else from the oldest that is kept.
func (f *face) events(r *http.Request) reply {
	id := r.Header.Get("Last-Event-ID")
	if id == "" {
		id = r.URL.Query().Get("after")
	}
	return reply{code: http.StatusOK, kind: "text/event-stream", stream: func(ctx context.Context, w io.Writer) error {
		_, err := io.WriteString(w, "retry: 2000\n\n")
		for p := parsePlace(id); err == nil && ctx.Err() == nil; {
			news, lost, next := f.link.board.wait(ctx, p, f.heartbeat)
			_, err = w.Write(eventText(news, lost, next))
			p = next
		}
		return err
	}}
}

// eventText lays out events; none is a comment that shows that we are there.
func eventText(news []swap.News, lost uint64, at place) []byte {
	if len(news) == 0 {
		return []byte(":\n\n")
	}
	var b []byte
	if lost > 0 {
		b = fmt.Appendf(b, "event: lost\ndata: {\"lost\":%d}\n\n", lost)
	}
	for _, n := range news {
		n.Time = n.Time.UTC()
		data, err := json.Marshal(n) // one line
		if err != nil {
			continue
		}
		at.after = n.Number
		b = fmt.Appendf(b, "id: %s\nevent: %s\ndata: %s\n\n", at, oneLine(n.Kind), data)
	}
	return b
}

// procRoot is where a helper reads what the kernel shows to everybody.
const procRoot = "/proc"

// Main is the helper: it serves on the socket in listening until the end of c, or until a signal asks it to end, and returns the exit code.
// listening is closed.
func Main(ctx context.Context, c Conn, listening *os.File) int {
	l, err := fileListener(listening)
	if err != nil {
		fmt.Fprintf(os.Stderr, "entrypoint: cannot serve metrics: %v\n", err)
		return 1
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	link := newLink(c)
	go func() {
		defer cancel()
		_ = link.receive() // its end is ours
	}()
	f := &face{link: link, proc: procRoot, heartbeat: defaultLimits.heartbeat}
	s := newServer(l, f.answer)
	if c.Ready() != nil {
		return 0 // PID 1 is gone
	}
	s.serve(ctx)
	return 0
}
