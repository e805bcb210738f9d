package requestlog

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/isekai-gateway/isekai/store"
)

const (
	// MaxTails is how many there may be at a time.
	MaxTails = 32

	// tailBuffer is how many records a tail may be behind.
	tailBuffer = 256
)

// Tail follows the records of this process as they come.
type Tail struct {
	records chan *store.RequestLog
	done    chan struct{}
	skipped atomic.Uint64
	matches func(*store.RequestLog) bool
	end     func()
}

// Records returns the records that match, in order. It is never closed.
func (t *Tail) Records() <-chan *store.RequestLog { return t.records }

// Done is closed when the tail or the log is.
func (t *Tail) Done() <-chan struct{} { return t.done }

// Skipped returns how many records were left out since the last call, because the
// reader was too slow.
func (t *Tail) Skipped() uint64 { return t.skipped.Swap(0) }

// Close ends the tail. It may be called more than once.
func (t *Tail) Close() { t.end() }

// Tail returns a new tail, or false if there are MaxTails already or the log is closed.
// matches is called for every record and must be quick; nil matches all.
func (l *Log) Tail(matches func(*store.RequestLog) bool) (*Tail, bool) {
	return l.tails.open(matches)
}

// tails is a set of tails that is read without a lock.
type tails struct {
	mu     sync.Mutex // of whoever changes the set
	set    atomic.Pointer[[]*Tail]
	closed bool
}

func (ts *tails) open(matches func(*store.RequestLog) bool) (*Tail, bool) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	var now []*Tail
	if set := ts.set.Load(); set != nil {
		now = *set
	}
	if ts.closed || len(now) >= MaxTails {
		return nil, false
	}
	t := &Tail{records: make(chan *store.RequestLog, tailBuffer), done: make(chan struct{}), matches: matches}
	t.end = sync.OnceFunc(func() {
		ts.remove(t)
		close(t.done)
	})
	next := append(slices.Clip(slices.Clone(now)), t)
	ts.set.Store(&next)
	return t, true
}

func (ts *tails) remove(t *Tail) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if set := ts.set.Load(); set != nil {
		next := slices.DeleteFunc(slices.Clone(*set), func(other *Tail) bool { return other == t })
		ts.set.Store(&next)
	}
}

// send gives a record to the tails that want it.
func (ts *tails) send(record *store.RequestLog) {
	set := ts.set.Load()
	if set == nil {
		return
	}
	for _, t := range *set {
		if t.matches != nil && !t.matches(record) {
			continue
		}
		select {
		case t.records <- record:
		default:
			t.skipped.Add(1)
		}
	}
}

// close ends all tails, and there will be no others.
func (ts *tails) close() {
	ts.mu.Lock()
	ts.closed = true
	var open []*Tail
	if set := ts.set.Load(); set != nil {
		open = *set
	}
	ts.mu.Unlock()
	for _, t := range open {
		t.Close()
	}
}
