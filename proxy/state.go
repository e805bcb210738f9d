package proxy

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/isekai-gateway/isekai/store"
)

// stateLinger is how long a pool's state is kept once no configuration uses the
// pool: a reload disposes the pools of before, and makes new ones as requests come.
const stateLinger = 10 * time.Minute

// States keeps what pools have learned, such as open circuit breakers and spent
// retry budgets, while configurations that use them come and go. The zero value is
// ready; it is safe for concurrent use.
type States struct {
	mu    sync.Mutex
	pools map[string]*poolState
}

// poolState is what a pool has learned. Its targets are those of the settings that
// the pool is known by.
type poolState struct {
	refs     int       // guarded by States.mu
	released time.Time // likewise

	requests atomic.Uint64 // requests, however often they were tried
	retries  atomic.Uint64 // further tries
	denied   atomic.Uint64 // further tries that the budget did not allow
	budget   *budget
	targets  []*targetState
}

// targetState is what a pool has learned of one target.
type targetState struct {
	requests  atomic.Uint64 // tries
	failures  atomic.Uint64 // tries that failed to connect or to answer
	inFlight  atomic.Int64
	lastCheck atomic.Int64 // when it was last asked for its health, in Unix nanoseconds
	lastFail  atomic.Int64 // when a try last failed, likewise
	told      atomic.Int32 // the health that was last logged
	changes   atomic.Uint64
	breaker   *breaker // nil if the pool has none
}

// acquire returns the state kept under key, made anew if there is none.
func (s *States) acquire(key string, targets int, u *store.Upstream) *poolState {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for other, state := range s.pools {
		if state.refs == 0 && now.Sub(state.released) > stateLinger {
			delete(s.pools, other)
		}
	}
	state := s.pools[key]
	if state == nil {
		state = &poolState{budget: newBudget(u.Retry), targets: make([]*targetState, targets)}
		for i := range state.targets {
			state.targets[i] = &targetState{}
			if u.CircuitBreaker != nil {
				state.targets[i].breaker = newBreaker(u.CircuitBreaker)
			}
		}
		if s.pools == nil {
			s.pools = make(map[string]*poolState)
		}
		s.pools[key] = state
	}
	state.refs++
	return state
}

func (s *States) release(state *poolState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if state.refs--; state.refs == 0 {
		state.released = time.Now()
	}
}
