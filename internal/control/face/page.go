package face

import (
	"crypto/sha256"
	_ "embed" // for the style and the script
	"encoding/base64"
	"fmt"
	"net/http"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hotswap-init/entrypoint/internal/swap"
)

//go:embed page.css
var pageStyle string

//go:embed page.js
var pageScript string

// pagePolicy lets the page load nothing but itself: its one style and its one script by their hashes, and what the script asks of us.
// It is made when it is first needed: in PID 1 it never is.
var pagePolicy = sync.OnceValue(func() string {
	return "default-src 'none'; style-src " + hashOf(pageStyle) + "; script-src " + hashOf(pageScript) +
		"; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
})

func hashOf(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

const (
	shownExited = 6  // ended generations on the page
	shownSwaps  = 8  // swaps
	shownNews   = 60 // events
)

// view is what the page shows.
type view struct {
	*Facts
	Conns map[string]int
	News  []swap.News
	At    place // behind the last of the news
	Now   time.Time
}

// markup writes HTML. Whatever is put into it by text or f is escaped: only constants of this package are not.
type markup struct{ strings.Builder }

// text writes words from anywhere.
func (m *markup) text(s string) { m.WriteString(escaped(s)) }

// f writes a constant format; every string among its arguments is escaped.
func (m *markup) f(format string, a ...any) {
	for i, v := range a {
		if s, ok := v.(string); ok {
			a[i] = escaped(s)
		}
	}
	fmt.Fprintf(m, format, a...)
}

// escaped makes any bytes text of a page: UTF-8, without control characters, nothing of it markup, in and out of quotes.
func escaped(s string) string { return markupEscapes.Replace(oneLine(s)) }

var markupEscapes = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&#34;", "'", "&#39;")

// page lays out the page for people. It needs no script: with one it keeps itself up to date.
func page(v *view) reply {
	var m markup
	st := &v.Status
	m.f(`<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">`+
		`<meta name="color-scheme" content="light dark"><title>%s · %s</title><link rel="icon" href="data:,">`, st.State, programName(st))
	m.WriteString("<style>" + pageStyle + "</style></head><body><main>")
	m.f(`<div id="page" data-moving="%t">`, moving(st))
	v.head(&m)
	v.figures(&m)
	v.generations(&m)
	v.traffic(&m)
	v.swaps(&m)
	v.artifact(&m)
	v.apps(&m)
	m.WriteString(`</div>`)
	v.events(&m)
	m.f(`<footer><span>entrypoint %s</span><a href="metrics">metrics</a><a href="status">status</a><a href="readyz">readyz</a><a href="livez">livez</a><a href="events">events</a></footer></main>`, st.Version)
	m.WriteString("<script>" + pageScript + "</script></body></html>\n")
	return reply{code: http.StatusOK, kind: "text/html; charset=utf-8", body: []byte(m.String()), header: [][2]string{
		{"Content-Security-Policy", pagePolicy()}, {"X-Frame-Options", "DENY"},
	}}
}

// programName is what people call the app.
func programName(st *swap.Status) string {
	if len(st.Command) == 0 {
		return "no app yet"
	}
	return path.Base(st.Command[0])
}

// moving tells whether something happens that is worth a look each second.
func moving(st *swap.Status) bool {
	return st.Candidate != 0 || st.State != "serving" || slices.ContainsFunc(st.Generations, func(g swap.Generation) bool {
		return g.Number != st.Active && g.EndedAt.IsZero()
	})
}

func (v *view) head(m *markup) {
	st := &v.Status
	class := "active"
	switch {
	case !v.Health.OK:
		class = "failed"
	case st.Candidate != 0:
		class = "starting"
	}
	m.f(`<header><h1><span class="dot s-%s"></span>%s</h1><p class="lede">%s`, class, programName(st), st.State)
	if st.Candidate != 0 {
		m.f(`, generation %d is the candidate`, st.Candidate)
	}
	if st.Active != 0 {
		m.f(`, generation %d is active`, st.Active)
	}
	if st.Remembered {
		m.WriteString(`, one more swap is to follow`)
	}
	m.f(`</p><p class="soft"><code>%s</code></p></header>`, strings.Join(st.Command, " "))
}

func (v *view) figures(m *markup) {
	st, c := &v.Status, &v.Counters
	figure := func(name, value, small string) {
		m.f(`<div><dt>%s</dt><dd>%s`, name, value)
		if small != "" {
			m.f(`<small>%s</small>`, small)
		}
		m.WriteString(`</dd></div>`)
	}
	m.WriteString(`<dl class="figures">`)
	if v.Health.OK {
		figure("Ready", "yes", "")
	} else {
		figure("Ready", "no", v.Health.Why)
	}
	figure("Up", span(v.Now.Sub(st.StartedAt)), "pid "+fmt.Sprint(st.PID))
	if u := v.Usage; u != nil {
		figure("Memory", size(u.Resident), plural(u.Processes, "process", "processes"))
		figure("Processor time", span(u.CPU), plural(u.Files, "open file", "open files"))
	}
	done, not := 0, 0
	for _, results := range c.Swaps {
		for r, n := range results {
			if r == "done" {
				done += int(n)
			} else {
				not += int(n)
			}
		}
	}
	figure("Swaps", fmt.Sprint(done), fmt.Sprintf("%d failed, %s", not, plural(st.Restarts, "restart", "restarts")))
	figure("Connections", total(v.Conns), drainText(st))
	m.WriteString(`</dl>`)
}

// total is how many connections are open on all listeners.
func total(conns map[string]int) string {
	if conns == nil {
		return "–"
	}
	n := 0
	for _, c := range conns {
		n += c
	}
	return fmt.Sprint(n)
}

func drainText(st *swap.Status) string {
	n, open := draining(st)
	if n == 0 {
		return "none draining"
	}
	return fmt.Sprintf("%d draining with %s", open, plural(n, "generation", "generations"))
}

// generations is the table, a lane of time in each row.
func (v *view) generations(m *markup) {
	list := v.shown()
	m.WriteString(`<section><h2>Generations</h2>`)
	if len(list) == 0 {
		m.WriteString(`<p class="soft">None yet.</p></section>`)
		return
	}
	axis := newAxis(list, v.Now)
	m.WriteString(`<div class="card"><table><thead><tr><th scope="col">#</th><th scope="col" class="life"><span class="hidden">Life, now at the right</span>`)
	axis.labels(m)
	m.WriteString(`</th><th scope="col">State</th><th scope="col">Traffic</th><th scope="col">Open</th><th scope="col">Bytes</th></tr></thead><tbody>`)
	seen := map[swap.State]bool{}
	for _, g := range list {
		v.generation(m, axis, g, seen)
	}
	m.WriteString(`</tbody></table><p class="legend">`)
	for _, s := range swap.States {
		if seen[s] {
			m.f(`<span class="tag s-%s"><span class="dot"></span><b>%s</b></span>`, string(s), string(s))
		}
	}
	m.WriteString(`</p></div></section>`)
}

// shown are the generations on the page, the newest first: all that live, and the last ones that ended.
func (v *view) shown() (list []*swap.Generation) {
	exited := 0
	for i := range v.Status.Generations { // in the order of their numbers
		g := &v.Status.Generations[len(v.Status.Generations)-1-i]
		if g.State == swap.Exited {
			exited++
		}
		if g.State != swap.Exited || exited <= shownExited {
			list = append(list, g)
		}
	}
	return list
}

func (v *view) generation(m *markup, axis *axis, g *swap.Generation, seen map[swap.State]bool) {
	m.f(`<tr><td class="num"><b>%d</b></td><td class="life">`, g.Number)
	axis.lane(m, g, seen)
	m.f(`</td><td><span class="tag s-%s"><span class="dot"></span><b>%s</b></span></td>`, string(g.State), string(g.State))
	m.f(`<td class="num">%s</td><td class="num open">%s</td><td class="bytes">`, v.part(g), openText(g))
	if g.SHA256 != "" {
		m.f(`<code>%s</code>`, shortHash(g.SHA256))
	}
	if text := noteOf(g); text != "" {
		m.f(`<div class="note">%s</div>`, text)
	}
	m.WriteString(`</td></tr>`)
}

// part is how much of the new connections a generation gets.
func (v *view) part(g *swap.Generation) string {
	st := &v.Status
	most := 0.0
	for _, s := range st.Sockets {
		for _, slot := range s.Slots {
			if slot.Generation == g.Number {
				most = max(most, slot.Portion)
			}
		}
	}
	switch {
	case most > 0:
		return fmt.Sprintf("%.3g %%", 100*most)
	case g.Share != "":
		return g.Share // of an address that shows no part: by networks
	case g.Number == st.Active:
		return "all"
	}
	return ""
}

func openText(g *swap.Generation) string {
	l := g.Load
	switch {
	case l == nil:
		return ""
	case !l.Known:
		return "not known"
	}
	text := fmt.Sprintf("%d open", l.Open)
	if l.Busy > 0 {
		text += fmt.Sprintf(", %d busy", l.Busy)
	}
	if n := l.Queued + l.HalfOpen; n > 0 {
		text += fmt.Sprintf(", %d waiting", n)
	}
	return text
}

// noteOf is the most telling thing that is known of a generation.
func noteOf(g *swap.Generation) string {
	if g.Unhealthy != "" && g.EndedAt.IsZero() {
		return "health: " + g.Unhealthy
	}
	for _, text := range []string{g.Reason, g.Exit, g.StatusText} {
		if text != "" {
			return text
		}
	}
	return ""
}

func (v *view) traffic(m *markup) {
	st := &v.Status
	if len(st.Sockets) == 0 {
		return
	}
	m.WriteString(`<section><h2>Traffic</h2><div class="card"><table><thead><tr><th scope="col">Listener</th><th scope="col" class="life">New connections go to</th>` +
		`<th scope="col">Waiting</th><th scope="col">Open</th></tr></thead><tbody>`)
	for i, s := range st.Sockets[:min(len(st.Sockets), maxListeners)] {
		m.f(`<tr><td class="wide"><b>%s</b> <code class="soft">%s</code>`, s.Name, s.Address)
		if s.Mode == "shared" && s.Why != "" {
			m.f(`<div class="note">%s</div>`, s.Why)
		}
		m.WriteString(`</td><td class="life">`)
		waiting := shares(m, st, i)
		m.f(`</td><td class="num">%d waiting</td><td class="num">`, waiting)
		if n, known := v.Conns[s.Name]; known {
			m.f(`%d open`, n)
		}
		m.WriteString(`</td></tr>`)
	}
	m.WriteString(`</tbody></table></div></section>`)
}

// shares draws which part of the new connections of a socket goes where, and counts what waits.
func shares(m *markup, st *swap.Status, socket int) (waiting int) {
	var words []string
	at := 0.0
	m.WriteString(`<svg height="16" aria-hidden="true"><rect class="track" width="100%" height="16" rx="3"/>`)
	for _, slot := range st.Sockets[socket].Slots {
		waiting += slot.Queue
		portion := slot.Portion
		if portion == 0 && slot.Current {
			portion = 1 - at
		}
		if portion <= 0 {
			continue
		}
		class, name := "active", "all generations"
		if g := generation(st, slot.Generation); g != nil {
			class, name = string(g.State), fmt.Sprintf("generation %d", g.Number)
		}
		m.f(`<rect class="s-%s" x="%.2f%%" width="%.2f%%" height="16" rx="3"/>`, class, 100*at, 100*min(portion, 1-at))
		at = min(1, at+portion)
		words = append(words, fmt.Sprintf("%s %.3g %%", name, 100*portion))
	}
	m.f(`</svg><span class="note">%s</span>`, strings.Join(words, ", "))
	return waiting
}

func (v *view) swaps(m *markup) {
	last := v.Status.LastSwaps
	m.WriteString(`<section><h2>Last swaps</h2>`)
	if len(last) == 0 {
		m.WriteString(`<p class="soft">None yet.</p></section>`)
		return
	}
	m.WriteString(`<ol class="swaps card">`)
	for _, r := range slices.Backward(last[max(0, len(last)-shownSwaps):]) {
		class, word := "rejected", "rejected"
		switch r.Code {
		case swap.CodeDone:
			class, word = "done", "done"
		case swap.CodeRolledBack:
			class, word = "rolled", "rolled back"
		}
		if r.Code != swap.CodeDone && r.Phase != "" {
			word += " in phase " + r.Phase
		}
		m.f(`<li><div class="head"><span class="tag s-%s"><span class="dot"></span><b>%s</b></span><span>%s</span><span class="soft num">%d → %d</span>`, class, word, r.Cause, r.From, r.To)
		m.f(`<span class="soft when num">%s, <time datetime="%s">%s ago</time></span></div>`,
			elapsed(float64(r.ElapsedMS)), r.At.UTC().Format(time.RFC3339), span(v.Now.Sub(r.At)))
		phaseBar(m, r.Phases)
		m.f(`<p class="note">%s</p></li>`, r.Text)
	}
	m.WriteString(`</ol></section>`)
}

// phaseColor is the number of a phase's colour.
var phaseColor = map[string]int{"check": 0, "stop": 0, "start": 1, "ready": 2, "smoke": 6, "canary": 3, "bake": 4, "promote": 5}

func phaseBar(m *markup, phases []swap.Phase) {
	sum := 0.0
	for _, p := range phases {
		sum += p.ElapsedMS
	}
	if sum <= 0 {
		return
	}
	m.WriteString(`<div class="bar"><svg height="8" aria-hidden="true"><rect class="track" width="100%" height="8" rx="2"/>`)
	at := 0.0
	for _, p := range phases {
		w := 100 * p.ElapsedMS / sum
		m.f(`<rect class="p%d" x="%.2f%%" width="%.2f%%" height="8"/>`, phaseColor[p.Name], at, w)
		at += w
	}
	m.WriteString(`</svg></div><div class="phases">`)
	for _, p := range phases {
		m.f(`<span class="tag num p%d"><span class="dot"></span><span class="soft">%s %s</span></span>`, phaseColor[p.Name], p.Name, elapsed(p.ElapsedMS))
	}
	m.WriteString(`</div>`)
}

func (v *view) artifact(m *markup) {
	st := &v.Status
	g := generation(st, st.Active)
	if g == nil {
		return
	}
	fact := func(name, value string) {
		if value != "" {
			m.f(`<dt>%s</dt><dd>%s</dd>`, name, value)
		}
	}
	m.WriteString(`<section><h2>Artifact</h2><dl class="facts card">`)
	m.f(`<dt>SHA-256</dt><dd><code>%s</code></dd>`, orWords(g.SHA256, "not hashed yet"))
	fact("File", g.Path)
	if a := g.Artifact; a != nil {
		fact("Size", size(a.Size))
		fact("Source", a.Source)
		fact("Runs from", map[string]string{"memfd": "a private copy in memory", "file": "a private copy in the state directory", "path": "its path"}[a.Exec])
		fact("Verified", a.Verified)
		fact("Comment", a.Comment)
	}
	if st.Drift {
		m.f(`<dt>Drift</dt><dd>yes: the container started with <code>%s</code></dd>`, shortHash(st.Image))
	} else {
		fact("Drift", "none: these are the bytes that the container started with")
	}
	fact("Hand-off", strings.Trim(st.Handoff+": "+st.HandoffWhy, ": "))
	fact("Memory of copies", size(st.Memory))
	m.WriteString(`</dl></section>`)
}

// apps says in a line each how the others are.
func (v *view) apps(m *markup) {
	if len(v.Others) == 0 {
		return
	}
	m.WriteString(`<section><h2>Other apps</h2><dl class="facts card">`)
	for _, o := range v.Others {
		m.f(`<dt>%s</dt><dd>%s`, o.App, o.Status.State)
		if o.Status.Active != 0 {
			m.f(`, generation %d is active`, o.Status.Active)
		}
		if !o.Health.OK {
			m.f(`; %s`, o.Health.Why)
		}
		m.WriteString(`</dd>`)
	}
	m.WriteString(`</dl></section>`)
}

func orWords(text, or string) string {
	if text == "" {
		return or
	}
	return text
}

func (v *view) events(m *markup) {
	m.f(`<section><h2>Events, in UTC <span id="live"></span></h2><ol id="events" class="card" data-after="%s">`, v.At.String())
	for _, n := range slices.Backward(v.News[max(0, len(v.News)-shownNews):]) {
		what, text := n.Kind, n.Text
		switch n.Kind {
		case swap.NewsPhase:
			what = n.Phase
		case swap.NewsGeneration:
			text = fmt.Sprintf("generation %d: %s → %s", n.Generation, n.From, n.To)
			if n.Text != "" {
				text += " (" + n.Text + ")"
			}
		case swap.NewsState:
			text = "the whole is " + n.To
		case swap.NewsHealth:
			text = fmt.Sprintf("generation %d: %s", n.Generation, n.Text)
		case swap.NewsSwap:
			if n.Swap != nil {
				text = n.Swap.Cause + ": " + text
			}
		}
		m.f(`<li><time class="num soft" datetime="%s">%s</time><span class="what">%s</span><p>%s</p></li>`,
			n.Time.UTC().Format(time.RFC3339Nano), n.Time.UTC().Format(time.TimeOnly), what, text)
	}
	m.WriteString(`</ol></section>`)
}
