package proxy

import (
	"time"
)

// PoolStatus is a pool of targets as it is now.
type PoolStatus struct {
	// A name that stays the same as long as the settings do.
	ID string `json:"id"`

	// The routes that share the pool.
	Routes []PoolRoute `json:"routes"`

	// How targets are chosen.
	Policy string `json:"policy"`

	// Requests since the pool was made, however often they were tried.
	Requests uint64 `json:"requests"`

	// Tries of requests on the fast lane.
	FastLane uint64 `json:"fast_lane"`

	// Further tries of requests.
	Retries uint64 `json:"retries"`

	// Further tries that the budget did not allow.
	RetriesDenied uint64 `json:"retries_denied"`

	// The targets, in the order of the settings.
	Targets []TargetStatus `json:"targets"`
}

// PoolRoute names a route of a pool.
type PoolRoute struct {
	ID   int64  `json:"id"`
	Name string `json:"name,omitempty"`
}

// TargetStatus is a target as it is now.
type TargetStatus struct {
	URL    string `json:"url"`
	Weight int    `json:"weight"`

	// Whether it may get requests: "healthy" or "unhealthy", by its checks.
	State string `json:"state"`

	// "closed", "open" or "half-open"; absent without a circuit breaker.
	Breaker string `json:"breaker,omitempty"`

	// How often the circuit breaker has opened.
	BreakerOpened uint64 `json:"breaker_opened"`

	// Requests and streams that it is busy with, from this pool.
	InFlight int64 `json:"in_flight"`

	// Tries of requests, and those that failed to connect or to answer.
	Requests uint64 `json:"requests"`
	Failures uint64 `json:"failures"`

	// Failures that count for its passive health now.
	RecentFailures int `json:"recent_failures"`

	// Changes of its state and of whether its breaker is open.
	Changes uint64 `json:"changes"`

	// When it was last asked for its health, and when a try last failed.
	LastCheck   *time.Time `json:"last_check,omitempty"`
	LastFailure *time.Time `json:"last_failure,omitempty"`
}

// Status describes the forwarder's pool, without its routes.
func (f *Forwarder) Status() PoolStatus {
	p := f.pool
	status := PoolStatus{
		ID: p.id, Policy: p.policyName,
		Requests: p.state.requests.Load(), FastLane: p.state.fast.Load(),
		Retries: p.state.retries.Load(), RetriesDenied: p.state.denied.Load(),
		Targets: make([]TargetStatus, len(p.targets)),
	}
	for i, t := range p.targets {
		s := TargetStatus{
			URL: t.scheme + "://" + t.authority, Weight: t.weight, State: "healthy",
			InFlight: t.inFlight.Load(), Requests: t.requests.Load(), Failures: t.failures.Load(),
			RecentFailures: t.failing.recent(), Changes: t.changes.Load(),
			LastCheck: timeOf(t.lastCheck.Load()), LastFailure: timeOf(t.lastFail.Load()),
		}
		if !t.healthy() {
			s.State = "unhealthy"
		}
		if t.breaker != nil {
			s.Breaker, s.BreakerOpened = t.breaker.state(), t.breaker.opened.Load()
		}
		status.Targets[i] = s
	}
	return status
}

func timeOf(nano int64) *time.Time {
	if nano == 0 {
		return nil
	}
	t := time.Unix(0, nano).UTC().Truncate(time.Millisecond)
	return &t
}
