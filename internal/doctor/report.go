package doctor

import (
	"fmt"
	"sort"
	"time"
)

// Schema is the version of the JSON form of Report. A field may be added without a new version; none is renamed or removed.
const Schema = 1

// Report is what was counted.
type Report struct {
	Schema      int      `json:"schema"`
	Code        int      `json:"code"` // the exit code; set by the command
	Text        string   `json:"text"` // what it comes to, one sentence
	URL         string   `json:"url"`
	Clients     int      `json:"clients"`     // with keep-alive
	NewClients  int      `json:"new_clients"` // with a new connection for each request
	Swaps       int      `json:"swaps"`       // that were done
	Requests    Count    `json:"requests"`    // all, lost ones too
	Lost        Count    `json:"lost"`
	ElapsedMS   int64    `json:"elapsed_ms"`
	Generations []Ended  `json:"generations"` // that were swapped out
	Losses      []Row    `json:"losses"`
	Advice      []Advice `json:"advice"`
}

// Count is a number of requests by class.
type Count struct {
	Kept int `json:"keep_alive"`
	New  int `json:"new"` // on new connections, the first of keep-alive clients included
}

// Total is all of them.
func (c Count) Total() int { return c.Kept + c.New }

// Ended is how a generation that was swapped out took its leave, in milliseconds from the switch.
type Ended struct {
	Number   int   `json:"gen"`
	SignalMS int64 `json:"signal_ms"`         // to the stop signal; less than 0 if it was stopped first
	EndMS    int64 `json:"end_ms"`            // to its end
	KillMS   int64 `json:"kill_ms,omitempty"` // to KILL, if it came to that
}

// Row is the losses that are alike.
type Row struct {
	Cause   Cause   `json:"cause"`
	Class   Class   `json:"clients"`
	Kind    Kind    `json:"kind"`
	After   Deed    `json:"after"` // what was done last to the generation: switch, signal, kill, or none
	Count   int     `json:"count"`
	FirstMS float64 `json:"first_ms"` // the earliest and the latest after that
	LastMS  float64 `json:"last_ms"`
	Sample  string  `json:"sample"` // the error of one of them
}

// Advice is what cures the losses of one cause.
type Advice struct {
	Cause Cause  `json:"cause"`
	Count int    `json:"count"`
	Text  string `json:"text"`
}

// diagnose sorts losses into rows and finds the advice.
func (r *Report) diagnose(losses []Loss, lives []Life) {
	r.Losses, r.Advice, r.Generations = []Row{}, []Advice{}, []Ended{}
	for _, l := range losses {
		p := find(l, lives)
		r.add(l, p, causeOf(l, p))
	}
	for _, c := range causes {
		n := 0
		for _, row := range r.Losses {
			if row.Cause == c.cause {
				n += row.Count
			}
		}
		if n > 0 {
			r.Advice = append(r.Advice, Advice{c.cause, n, c.advice})
		}
	}
	sort.SliceStable(r.Losses, func(i, j int) bool { return order(r.Losses[i].Cause) < order(r.Losses[j].Cause) })
	for _, l := range lives {
		r.ended(l)
	}
}

func order(c Cause) int {
	for i := range causes {
		if causes[i].cause == c {
			return i
		}
	}
	return len(causes)
}

func (r *Report) add(l Loss, p place, cause Cause) {
	after := float64(p.since.Microseconds()) / 1000
	for i := range r.Losses {
		row := &r.Losses[i]
		if row.Cause == cause && row.Class == l.Class && row.Kind == l.Kind && row.After == p.deed {
			row.Count++
			row.FirstMS, row.LastMS = min(row.FirstMS, after), max(row.LastMS, after)
			return
		}
	}
	r.Losses = append(r.Losses, Row{cause, l.Class, l.Kind, p.deed, 1, after, after, l.Text})
}

// ended notes the leave of a generation that has been replaced.
func (r *Report) ended(l Life) {
	if l.Replaced.IsZero() || l.Ended.IsZero() {
		return
	}
	e := Ended{Number: l.Number, EndMS: l.Ended.Sub(l.Replaced).Milliseconds()}
	if !l.Signalled.IsZero() {
		e.SignalMS = l.Signalled.Sub(l.Replaced).Milliseconds()
	}
	if !l.Killed.IsZero() {
		e.KillMS = l.Killed.Sub(l.Replaced).Milliseconds()
	}
	r.Generations = append(r.Generations, e)
}

// sum writes the sentence.
func (r *Report) sum() {
	swaps := fmt.Sprintf("%d swaps", r.Swaps)
	if r.Swaps == 1 {
		swaps = "1 swap"
	}
	if r.Lost.Total() == 0 {
		r.Text = fmt.Sprintf("nothing was lost: none of %d requests in %s", r.Requests.Total(), swaps)
		return
	}
	r.Text = fmt.Sprintf("%d of %d requests were lost in %s", r.Lost.Total(), r.Requests.Total(), swaps)
}

// Span is when the losses of a row happened, for people.
func (w Row) Span() string {
	what := map[Deed]string{Replaced: "the switch", Signal: "the stop signal", Kill: "KILL"}[w.After]
	if what == "" {
		return "no swap under way"
	}
	round := func(ms float64) time.Duration {
		return time.Duration(ms * float64(time.Millisecond)).Round(time.Millisecond)
	}
	first, last := round(w.FirstMS), round(w.LastMS)
	if first == last {
		return fmt.Sprintf("%s after %s", first, what)
	}
	return fmt.Sprintf("%s to %s after %s", first, last, what)
}
