package ondemand

import (
	"sync"
	"time"
)

// maxTracked bounds the names of all wildcards together that a Budget remembers, and
// so its memory to some tens of megabytes.
const maxTracked = 100_000

// sweepPause is how long a full Budget waits before it looks for expired names again.
const sweepPause = time.Second

// Budget bounds how many different names under each wildcard route are allowed
// within any time window, since a client can ask for endless ones. It is safe for
// concurrent use.
type Budget struct {
	names  int
	window time.Duration
	now    func() time.Time

	mu        sync.Mutex
	wildcards map[string]*taken
	tracked   int
	swept     time.Time
}

// taken is the names that one wildcard was allowed, and when.
type taken struct {
	at     map[string]time.Time
	oldest time.Time // no name is older than this
}

// NewBudget returns a Budget of so many names per wildcard and window, both above 0.
func NewBudget(names int, window time.Duration) *Budget {
	return &Budget{names: names, window: window, now: time.Now, wildcards: make(map[string]*taken)}
}

// take reports whether name is allowed, which takes a place for the length of the
// window unless it has one.
func (b *Budget) take(wildcard, name string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	t := b.wildcards[wildcard]
	if t == nil {
		t = &taken{at: make(map[string]time.Time)}
	}
	if at, ok := t.at[name]; ok && now.Sub(at) < b.window {
		return true
	}
	if len(t.at) >= b.names {
		if now.Sub(t.oldest) < b.window {
			return false // without a look at every name, which a flood could make dear
		}
		b.expire(t, now)
		if len(t.at) >= b.names {
			return false
		}
	}
	if b.tracked >= maxTracked && !b.sweep(now) {
		return false
	}
	if _, expired := t.at[name]; !expired {
		b.tracked++
	}
	if len(t.at) == 0 {
		t.oldest = now
	}
	t.at[name] = now
	b.wildcards[wildcard] = t
	return true
}

// expire forgets the names whose window has passed.
func (b *Budget) expire(t *taken, now time.Time) {
	t.oldest = now
	for name, at := range t.at {
		if now.Sub(at) >= b.window {
			delete(t.at, name)
			b.tracked--
		} else if at.Before(t.oldest) {
			t.oldest = at
		}
	}
}

// sweep does so for all wildcards and reports whether there is room then.
func (b *Budget) sweep(now time.Time) bool {
	if now.Sub(b.swept) < sweepPause {
		return false
	}
	b.swept = now
	for wildcard, t := range b.wildcards {
		if b.expire(t, now); len(t.at) == 0 {
			delete(b.wildcards, wildcard)
		}
	}
	return b.tracked < maxTracked
}
