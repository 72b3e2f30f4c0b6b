package face

import (
	"context"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hotswap-init/entrypoint/internal/swap"
)

// boardRoom is how many events are kept for those who come late: twice what PID 1 keeps.
const boardRoom = 256

// board keeps the last events. Readers read at a place of their own; nobody waits for them.
type board struct {
	mu      sync.Mutex
	began   time.Time // of the init, which gives the numbers
	items   []swap.News
	changed chan struct{} // closed, and made anew, when something is added
}

func newBoard() *board { return &board{changed: make(chan struct{})} }

func (b *board) add(began time.Time, news []swap.News, lost uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if lost > 0 {
		b.items = nil // numbers that are missing show as lost to each reader
	}
	b.began = began
	b.items = append(b.items, news...)
	if n := len(b.items) - boardRoom; n > 0 {
		b.items = append([]swap.News(nil), b.items[n:]...)
	}
	close(b.changed)
	b.changed = make(chan struct{})
}

// place is where a reader stands: behind the event of that number.
type place struct {
	began int64 // nanoseconds; 0: nothing read yet
	after uint64
}

// parsePlace reads what the field id of an event was; what it is not is the beginning.
func parsePlace(id string) place {
	a, b, ok := strings.Cut(id, "-")
	began, err := strconv.ParseInt(a, 36, 64)
	after, err2 := strconv.ParseUint(b, 10, 64)
	if !ok || err != nil || err2 != nil {
		return place{}
	}
	return place{began, after}
}

func (p place) String() string {
	return strconv.FormatInt(p.began, 36) + "-" + strconv.FormatUint(p.after, 10)
}

// read gives what follows a place, how many events are missing before that, and where the reader stands then. A place in the
// life of another init is the beginning of this one's.
func (b *board) read(p place) (news []swap.News, lost uint64, next place, changed <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	began := int64(0)
	if !b.began.IsZero() {
		began = b.began.UnixNano()
	}
	fresh := p.began != began
	if fresh {
		p = place{began: began}
	}
	for i, n := range b.items {
		if n.Number <= p.after {
			continue
		}
		if i == 0 && !fresh {
			lost = n.Number - p.after - 1
		}
		news = append(news, b.items[i:]...)
		break
	}
	if len(news) > 0 {
		p.after = news[len(news)-1].Number
	}
	return news, lost, p, b.changed
}

// wait blocks until there is something behind the place, or until the time is over or ctx ends: then there is nothing.
func (b *board) wait(ctx context.Context, p place, most time.Duration) (news []swap.News, lost uint64, next place) {
	late := time.NewTimer(most)
	defer late.Stop()
	for {
		news, lost, next, changed := b.read(p)
		if len(news) > 0 {
			return news, lost, next
		}
		select {
		case <-changed:
		case <-late.C:
			return nil, 0, p
		case <-ctx.Done():
			return nil, 0, p
		}
	}
}
