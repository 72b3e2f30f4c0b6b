package face

import (
	"time"

	"github.com/hotswap-init/entrypoint/internal/swap"
)

// Conn carries messages between PID 1 and a helper; *helper.Conn is one. Send may be called from several goroutines at once.
type Conn interface {
	Send(v any) error
	Receive(v any) error
	Ready() error
	Close() error
}

// The questions of a helper.
const (
	wantHealth = "health"
	wantFacts  = "facts"
)

// ask is a question of a helper.
type ask struct {
	ID   uint64 `json:"id"`
	Want string `json:"want"`
}

// tell is an answer of PID 1, or news.
type tell struct {
	ID     uint64      `json:"id,omitempty"` // of the question; 0: news
	Health *Health     `json:"health,omitempty"`
	Facts  *Facts      `json:"facts,omitempty"`
	Error  string      `json:"error,omitempty"`
	Began  time.Time   `json:"began,omitzero"` // when the init did: news have their numbers since then
	News   []swap.News `json:"news,omitempty"`
	Lost   uint64      `json:"lost,omitempty"` // news that were dropped before these
}

// Health is what the command health says.
type Health struct {
	OK  bool   `json:"ok"`
	Why string `json:"why,omitempty"`
}

// Facts is all that an answer may need: copies of bounded size.
type Facts struct {
	Health   Health        `json:"health"`
	Status   swap.Status   `json:"status"`
	Counters swap.Counters `json:"counters"`
	Usage    *Usage        `json:"usage,omitempty"`  // nil: no generation runs, or /proc cannot be read
	App      string        `json:"app,omitempty"`    // of several apps, the main one's name
	Others   []*Facts      `json:"others,omitempty"` // the other apps, each with a health of its own and without Extra
	Extra
}

// Extra is what is known beside the supervisor.
type Extra struct {
	Signals    []SignalCount `json:"signals,omitempty"`
	Watch      string        `json:"watch,omitempty"` // how files are watched: inotify or poll; "": none are
	LogDropped uint64        `json:"log_dropped,omitempty"`
	Deprecated int           `json:"deprecated,omitempty"` // variables in use that are deprecated
	Goroutines int           `json:"goroutines,omitempty"` // of the init
}

// SignalCount counts the signals that the init got.
type SignalCount struct {
	Signal string `json:"signal"` // SIGHUP
	Action string `json:"action"` // forward, ignore, reload, stop
	Count  uint64 `json:"count"`
}

// Usage is what the processes of the app use.
type Usage struct {
	Processes int           `json:"processes"` // of the active generation
	Resident  int64         `json:"resident"`  // bytes, summed up: what they share counts for each
	Files     int           `json:"files"`     // open descriptors
	CPU       time.Duration `json:"cpu"`       // of all generations since the init began, and of what they have waited for
}
