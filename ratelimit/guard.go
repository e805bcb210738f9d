package ratelimit

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/sony/gobreaker/v2"
	"go.uber.org/zap"
)

// Bounds of a Guard.
const (
	// DefaultRecovery is how long a Guard's breaker stays open unless told otherwise.
	DefaultRecovery = time.Second

	// maxCalls is how many calls to a backend may be in flight. A backend that
	// ignores its context holds no more goroutines than that.
	maxCalls = 4096

	// The breaker opens after so many failures in a row, or, of at least so many
	// calls in the interval, at this part of them.
	tripInRow     = 5
	tripCalls     = 50
	tripPart      = 0.5
	tripInterval  = 10 * time.Second
	tripPrecision = time.Second
)

// Why a call to a backend was not answered.
var (
	errTimeout = errors.New("no answer in time")
	errBusy    = errors.New("too many calls are in flight")
	errOpen    = errors.New("the circuit breaker is open")
)

// Guard calls a shared backend and returns in time whatever the backend does. After
// some failures it leaves the backend alone, and tries one call every now and then
// until it answers again. It is safe for concurrent use.
type Guard struct {
	remote  Backend
	log     func() *zap.Logger
	breaker *gobreaker.TwoStepCircuitBreaker[struct{}]
	slots   chan struct{}
	cause   atomic.Pointer[error] // of the last failure

	ok, timeouts, failures, busy, open, fallbacks atomic.Uint64
}

// GuardStats is a Guard's counters since it was made.
type GuardStats struct {
	OK        uint64 // calls that the backend answered
	Timeouts  uint64 // calls without an answer in time
	Errors    uint64 // calls that the backend failed
	Busy      uint64 // calls not made since too many were in flight
	Open      uint64 // calls not made since the breaker was open
	Fallbacks uint64 // decisions made without the backend
	Up        bool   // whether the breaker is closed
}

// NewGuard returns a guard of remote. The breaker tries a call after being open for
// recovery; 0 is DefaultRecovery. The logger is asked for when the state changes.
func NewGuard(remote Backend, recovery time.Duration, log func() *zap.Logger) *Guard {
	if recovery <= 0 {
		recovery = DefaultRecovery
	}
	g := &Guard{remote: remote, log: log, slots: make(chan struct{}, maxCalls)}
	g.breaker = gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
		MaxRequests:  1,
		Interval:     tripInterval,
		BucketPeriod: tripPrecision,
		Timeout:      recovery,
		ReadyToTrip: func(c gobreaker.Counts) bool {
			return c.ConsecutiveFailures >= tripInRow ||
				c.Requests >= tripCalls && float64(c.TotalFailures) >= tripPart*float64(c.Requests)
		},
		OnStateChange: g.changed,
	})
	return g
}

// Stats returns the counters.
func (g *Guard) Stats() GuardStats {
	return GuardStats{
		OK: g.ok.Load(), Timeouts: g.timeouts.Load(), Errors: g.failures.Load(), Busy: g.busy.Load(), Open: g.open.Load(),
		Fallbacks: g.fallbacks.Load(),
		Up:        g.breaker.State() == gobreaker.StateClosed,
	}
}

// changed logs that the backend is lost or back, but not each attempt in between.
func (g *Guard) changed(_ string, from, to gobreaker.State) {
	switch {
	case from == gobreaker.StateClosed && to == gobreaker.StateOpen:
		g.log().Warn("the rate limits' backend fails; going on without it", zap.NamedError("cause", *g.cause.Load()))
	case to == gobreaker.StateClosed:
		g.log().Info("the rate limits' backend is back")
	}
}

// answer is what a call to a backend returns.
type answer struct {
	decisions []Decision
	allowed   bool
	err       error
}

// call calls the backend. It returns an error rather than wait longer than timeout,
// and leaves the call to itself then. Requests that are reset while they wait are
// charged all the same, so ctx cannot cancel it.
func (g *Guard) call(ctx context.Context, timeout time.Duration, fn func(ctx context.Context) answer) (answer, error) {
	done, err := g.breaker.Allow()
	if err != nil {
		g.open.Add(1)
		return answer{}, errOpen
	}
	select {
	case g.slots <- struct{}{}:
	default:
		g.busy.Add(1)
		return answer{}, g.fail(done, errBusy)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
	answered := make(chan answer, 1)
	go func() {
		defer func() {
			if p := recover(); p != nil {
				answered <- answer{err: fmt.Errorf("the backend panicked: %v", p)}
			}
			<-g.slots
		}()
		answered <- fn(ctx)
	}()
	defer cancel()
	select {
	case a := <-answered:
		switch {
		case a.err == nil:
			g.ok.Add(1)
			done(nil)
			return a, nil
		case errors.Is(a.err, context.DeadlineExceeded):
			g.timeouts.Add(1)
			return answer{}, g.fail(done, errTimeout)
		}
		g.failures.Add(1)
		return answer{}, g.fail(done, a.err)
	case <-ctx.Done():
		g.timeouts.Add(1)
		return answer{}, g.fail(done, errTimeout)
	}
}

func (g *Guard) fail(done func(error), err error) error {
	g.cause.Store(&err)
	done(err)
	return err
}
