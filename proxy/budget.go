package proxy

import (
	"sync"
	"time"

	"github.com/isekai-gateway/isekai/store"
)

// Defaults of a retry budget.
const (
	defaultBudgetPercent = 20
	defaultBudgetMin     = 3 // per second
	budgetSeconds        = 10
)

// budget bounds a pool's retries to a share of its requests over the last seconds,
// with a minimum for pools with few. It counts per second. The idea is that of
// Finagle's and Envoy's retry budgets: what is bounded is how much more load a
// failing upstream gets, however many requests fail.
type budget struct {
	share   float64 // of the requests
	minimum float64 // over the whole window

	mu      sync.Mutex
	seconds [budgetSeconds]budgetSecond
	sum     budgetSecond // of all seconds; its at is that of the newest
}

type budgetSecond struct {
	at                int64
	requests, retries int
}

func newBudget(r *store.Retry) *budget {
	percent, minimum := float64(defaultBudgetPercent), float64(defaultBudgetMin)
	if r != nil && r.BudgetPercent != nil {
		percent = *r.BudgetPercent
	}
	if r != nil && r.BudgetMin != nil {
		minimum = *r.BudgetMin
	}
	return &budget{share: percent / 100, minimum: minimum * budgetSeconds}
}

// request counts a request.
func (b *budget) request(now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.second(now).requests++
	b.sum.requests++
}

// take counts a retry and returns true, unless there were too many.
func (b *budget) take(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	second := b.second(now)
	if float64(b.sum.retries+1) > max(b.minimum, b.share*float64(b.sum.requests)) {
		return false
	}
	second.retries++
	b.sum.retries++
	return true
}

// second returns the counts of now's second and forgets those that have left the
// window. A clock that goes back counts into the newest second.
func (b *budget) second(now time.Time) *budgetSecond {
	if at := now.Unix(); at > b.sum.at {
		b.sum.at = at
		for i := range b.seconds {
			s := &b.seconds[i]
			if s.at <= at-budgetSeconds {
				b.sum.requests -= s.requests
				b.sum.retries -= s.retries
				*s = budgetSecond{at: s.at}
			}
		}
		b.seconds[at%budgetSeconds].at = at
	}
	return &b.seconds[b.sum.at%budgetSeconds]
}
