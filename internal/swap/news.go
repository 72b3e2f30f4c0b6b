package swap

import (
	"context"
	"sync"
	"time"
	"unicode/utf8"
)

// The kinds of News.
const (
	NewsGeneration = "generation" // a generation changed its state: From, To
	NewsPhase      = "phase"      // a swap got on: Phase, as in Progress
	NewsSwap       = "swap"       // a swap was decided: Swap
	NewsState      = "state"      // the state of the whole is another: To, as in Status
	NewsHealth     = "health"     // a generation failed a health check, or is well again
)

// News is one thing that happened, for whoever follows what the init does.
type News struct {
	Number     uint64      `json:"number"` // from 1, in order, none left out
	Time       time.Time   `json:"time"`
	Kind       string      `json:"kind"`
	Generation int         `json:"gen,omitempty"`
	From       string      `json:"from,omitempty"`
	To         string      `json:"to,omitempty"`
	Phase      string      `json:"phase,omitempty"`
	Text       string      `json:"text,omitempty"` // for people, at most newsText bytes
	Swap       *SwapRecord `json:"swap,omitempty"` // must not be changed: all readers share it
}

const (
	// newsRoom is how many news are kept for those who come late or read slowly: some ten swaps.
	newsRoom = 128
	// newsText bounds the text of one: a fault of an app may quote what the app said.
	newsText = 400
)

// feed keeps the last news and wakes whoever waits for more. It is shared by the owner, which only ever takes the lock for one
// entry, and by the readers, which copy at most newsRoom entries under it: so nobody who reads slowly holds up the owner.
type feed struct {
	mu      sync.Mutex
	ring    []News // news number n is at (n-1) % newsRoom
	last    uint64 // number of the newest
	ended   bool
	readers map[*Subscription]struct{}
}

// Subscription is one reader of the news. It must be closed. Its methods are for one goroutine at a time.
type Subscription struct {
	feed *feed
	next uint64        // the number that it wants
	wake chan struct{} // room for one word: there is more
}

// Subscribe follows the news that have a number above after: 0 begins with the oldest that is kept. A number that was not given
// out yet begins with what comes next.
func (s *Supervisor) Subscribe(after uint64) *Subscription {
	f := &s.news
	f.mu.Lock()
	defer f.mu.Unlock()
	r := &Subscription{feed: f, next: min(after, f.last) + 1, wake: make(chan struct{}, 1)}
	if f.readers == nil {
		f.readers = map[*Subscription]struct{}{}
	}
	f.readers[r] = struct{}{}
	r.poke()
	return r
}

// Next blocks until there are news, and gives all that are there: at most 128, in order. lost says how many were dropped before
// them because this reader was too slow, or came too late. The error is that of ctx, or ErrEnded once Run is over and everything was read.
func (r *Subscription) Next(ctx context.Context) (news []News, lost uint64, err error) {
	for {
		select {
		case <-r.wake:
		case <-ctx.Done():
			return nil, 0, context.Cause(ctx)
		}
		if news, lost, err = r.take(); len(news) > 0 || err != nil {
			return news, lost, err
		}
	}
}

func (r *Subscription) take() (news []News, lost uint64, err error) {
	f := r.feed
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ended {
		r.poke() // nobody else will
	}
	if oldest := f.last + 1 - uint64(len(f.ring)); r.next < oldest {
		lost, r.next = oldest-r.next, oldest
	}
	for ; r.next <= f.last; r.next++ {
		news = append(news, f.ring[(r.next-1)%newsRoom])
	}
	if len(news) == 0 && f.ended {
		err = ErrEnded
	}
	return news, lost, err
}

// Close ends the subscription.
func (r *Subscription) Close() {
	r.feed.mu.Lock()
	defer r.feed.mu.Unlock()
	delete(r.feed.readers, r)
}

func (r *Subscription) poke() {
	select {
	case r.wake <- struct{}{}:
	default: // it has not looked since the last time
	}
}

// publish never blocks on a reader.
func (f *feed) publish(n News) {
	n.Time, n.Text = time.Now(), cutText(n.Text)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last++
	n.Number = f.last
	if len(f.ring) < newsRoom {
		f.ring = append(f.ring, n)
	} else {
		f.ring[(n.Number-1)%newsRoom] = n
	}
	for r := range f.readers {
		r.poke()
	}
}

// end lets the readers know that nothing follows.
func (f *feed) end() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ended = true
	for r := range f.readers {
		r.poke()
	}
}

// cutText bounds a text, and ends it at a whole character.
func cutText(text string) string {
	if len(text) <= newsText {
		return text
	}
	n := newsText
	for n > 0 && !utf8.RuneStart(text[n]) {
		n--
	}
	return text[:n] + "…"
}
