package proxy

import (
	"errors"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/sony/gobreaker/v2"

	"github.com/isekai-gateway/isekai/store"
)

// Defaults of store.CircuitBreaker.
const (
	defaultFailureRatio  = 0.5
	defaultMinRequests   = 20
	defaultBreakerWindow = 10 * time.Second
	defaultOpenFor       = 10 * time.Second
	defaultProbes        = 3
)

// breakerBuckets is into how many parts the window is cut that slides.
const breakerBuckets = 10

// The outcomes of a request that a breaker hears of.
var (
	errFailed  = errors.New("the request failed")
	errNoJudge = errors.New("the request says nothing about the target")
)

// breaker is a circuit breaker: gobreaker, told what counts as a failure and asked
// before each request.
type breaker struct {
	cb       *gobreaker.TwoStepCircuitBreaker[struct{}]
	openFor  time.Duration
	slow     time.Duration
	statuses []int
	reopens  atomic.Int64  // when it tries again, in Unix nanoseconds
	opened   atomic.Uint64 // how often it has opened
}

func newBreaker(c *store.CircuitBreaker) *breaker {
	ratio, least, probes := c.FailureRatio, c.MinRequests, c.Probes
	if ratio == 0 {
		ratio = defaultFailureRatio
	}
	if least == 0 {
		least = defaultMinRequests
	}
	if probes == 0 {
		probes = defaultProbes
	}
	b := &breaker{openFor: c.OpenFor.Duration(defaultOpenFor), slow: c.Slow.Duration(0), statuses: c.Statuses}
	if b.statuses == nil {
		b.statuses = []int{5}
	}
	window := c.Window.Duration(defaultBreakerWindow)
	b.cb = gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
		MaxRequests:  uint32(probes),
		Interval:     window,
		BucketPeriod: max(window/breakerBuckets, time.Millisecond),
		Timeout:      b.openFor,
		ReadyToTrip: func(c gobreaker.Counts) bool {
			judged := c.TotalSuccesses + c.TotalFailures
			return judged >= uint32(least) &&
				float64(c.TotalFailures) >= ratio*float64(judged)
		},
		OnStateChange: func(_ string, _, to gobreaker.State) {
			if to == gobreaker.StateOpen {
				b.reopens.Store(time.Now().Add(b.openFor).UnixNano())
				b.opened.Add(1)
			}
		},
		IsExcluded: func(err error) bool { return errors.Is(err, errNoJudge) },
	})
	return b
}

// closed reports whether requests go through without being counted as probes. A
// nil breaker is always closed.
func (b *breaker) closed() bool { return b == nil || b.cb.State() == gobreaker.StateClosed }

// admit asks for leave to send a request. The returned function, nil for a nil
// breaker, must be called with the outcome, once.
func (b *breaker) admit() (done func(error), ok bool) {
	if b == nil {
		return nil, true
	}
	done, err := b.cb.Allow()
	return done, err == nil
}

// judge returns the outcome of a request for the function that admit has returned.
func (b *breaker) judge(status int, latency time.Duration) error {
	if b.slow > 0 && latency >= b.slow {
		return errFailed
	}
	for _, bad := range b.statuses {
		if caddyhttp.StatusCodeMatches(status, bad) {
			return errFailed
		}
	}
	return nil
}

// wait returns how long it is until an open breaker tries again, 0 if it does.
func (b *breaker) wait(now time.Time) time.Duration {
	if b == nil || b.cb.State() != gobreaker.StateOpen {
		return 0
	}
	return max(0, time.Unix(0, b.reopens.Load()).Sub(now))
}

// state is the breaker's state in one word: closed, half-open or open.
func (b *breaker) state() string { return b.cb.State().String() }
