package proxy

import (
	"fmt"
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
	mu       sync.Mutex
	pools    map[string]*poolState
	loads    map[string]*shared[load]     // by address
	failures map[string]*shared[failures] // by address and checks
}

// load is what all pools together ask of an address.
type load struct {
	inFlight atomic.Int64 // requests and streams of this process
}

// shared is something that the states of pools share.
type shared[T any] struct {
	refs  int
	value *T
}

// share returns what is under key, made by fresh if there is nothing, for one pool
// more.
func share[T any](all *map[string]*shared[T], key string, fresh func() *T) *T {
	s := (*all)[key]
	if s == nil {
		if s = (&shared[T]{value: fresh()}); *all == nil {
			*all = make(map[string]*shared[T])
		}
		(*all)[key] = s
	}
	s.refs++
	return s.value
}

// unshare gives back what share has returned.
func unshare[T any](all map[string]*shared[T], key string) {
	if s := all[key]; s != nil {
		if s.refs--; s.refs == 0 {
			delete(all, key)
		}
	}
}

// poolState is what a pool has learned. Its targets are those of the settings that
// the pool is known by.
type poolState struct {
	refs     int       // guarded by States.mu
	released time.Time // likewise
	unshare  func()    // gives back what is shared with other pools

	requests atomic.Uint64 // requests, however often they were tried
	fast     atomic.Uint64 // tries on the fast lane
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
	load      *load
	failing   *failures // nil without passive checks
	breaker   *breaker  // nil if the pool has none
}

// acquire returns the state kept under key, made anew if there is none.
func (s *States) acquire(key string, targets []poolTarget, u *store.Upstream) *poolState {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for other, state := range s.pools {
		if state.refs == 0 && now.Sub(state.released) > stateLinger {
			delete(s.pools, other)
			state.unshare()
		}
	}
	state := s.pools[key]
	if state == nil {
		state = s.newState(targets, u)
		if s.pools == nil {
			s.pools = make(map[string]*poolState)
		}
		s.pools[key] = state
	}
	state.refs++
	return state
}

func (s *States) newState(targets []poolTarget, u *store.Upstream) *poolState {
	state := &poolState{budget: newBudget(u.Retry), targets: make([]*targetState, len(targets))}
	var passive *store.PassiveHealth
	checks := ""
	if u.Health != nil && u.Health.Passive != nil {
		passive = u.Health.Passive
		checks = " " + fmt.Sprint(*passive)
	}
	for i, member := range targets {
		t := &targetState{load: share(&s.loads, member.Address, func() *load { return new(load) })}
		if passive != nil {
			t.failing = share(&s.failures, member.Address+checks, func() *failures { return newFailures(passive) })
		}
		if u.CircuitBreaker != nil {
			t.breaker = newBreaker(u.CircuitBreaker)
		}
		state.targets[i] = t
	}
	state.unshare = func() {
		for _, member := range targets {
			unshare(s.loads, member.Address)
			unshare(s.failures, member.Address+checks)
		}
	}
	return state
}

func (s *States) release(state *poolState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if state.refs--; state.refs == 0 {
		state.released = time.Now()
	}
}
