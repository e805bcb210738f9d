package proxy

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/isekai-gateway/isekai/store"
)

// failures are those of one target that count for its passive health. They are
// shared by all pools of the process that have the address and the same checks. A nil
// *failures is of a target without such checks. It is safe for concurrent use.
type failures struct {
	most     int
	duration time.Duration
	statuses []int
	latency  time.Duration

	// Until when the target is suspected, in Unix nanoseconds: until the oldest of the
	// newest most failures counts no more. Requests read nothing else.
	until atomic.Int64

	mu     sync.Mutex
	newest []time.Time // a ring of at most most
	next   int         // where the next one goes once the ring is full
}

func newFailures(p *store.PassiveHealth) *failures {
	f := &failures{
		most: p.MaxFails, duration: p.FailDuration.Duration(defaultFailDuration),
		statuses: p.UnhealthyStatus, latency: p.UnhealthyLatency.Duration(0),
	}
	if f.most == 0 {
		f.most = defaultMaxFails
	}
	return f
}

// add counts a failure.
func (f *failures) add(now time.Time) {
	if f == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.newest) < f.most {
		f.newest = append(f.newest, now)
	} else {
		f.newest[f.next] = now
		f.next = (f.next + 1) % f.most
	}
	if len(f.newest) == f.most {
		f.until.Store(f.newest[f.next].Add(f.duration).UnixNano())
	}
}

// judge counts an answer if it is a failure, twice if it is one in two ways.
func (f *failures) judge(status int, latency time.Duration) {
	if f == nil {
		return
	}
	for _, bad := range f.statuses {
		if caddyhttp.StatusCodeMatches(status, bad) {
			f.add(time.Now())
		}
	}
	if f.latency > 0 && latency >= f.latency {
		f.add(time.Now())
	}
}

// suspect says whether there are too many.
func (f *failures) suspect() bool {
	if f == nil {
		return false
	}
	until := f.until.Load()
	return until != 0 && time.Now().UnixNano() < until
}

// recent returns how many count now, at most as many as make a target unhealthy.
func (f *failures) recent() int {
	if f == nil {
		return 0
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	n, since := 0, time.Now().Add(-f.duration)
	for _, at := range f.newest {
		if at.After(since) {
			n++
		}
	}
	return n
}
