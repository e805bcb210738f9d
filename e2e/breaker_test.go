package e2e_test

import (
	"fmt"
	"net/http"
	"strconv"
	"testing"
)

// breakerOf makes the settings of a breaker that opens after three failures.
func breakerOf(openFor float64) map[string]any {
	return map[string]any{"failure_ratio": 0.5, "min_requests": 3, "window": 60, "open_for": openFor, "probes": 1}
}

func (g *gateway) waitBreaker(id int64, target int, state string) {
	g.t.Helper()
	eventually(g.t, servedWithin, "the breaker is "+state, func() error {
		if got := g.pool(id).Targets[target]; got.Breaker != state {
			return fmt.Errorf("it is %+v", got)
		}
		return nil
	})
}

// TestCircuitBreaker opens for a target that fails, whichever way, takes another as
// long as it is open, and closes when it has recovered.
func TestCircuitBreaker(t *testing.T) {
	t.Parallel()
	for name, fail := range map[string]func(*backend){
		"status": func(b *backend) { b.status(500) }, "broken answer": (*backend).abort, "refused": (*backend).stop,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := startGateway(t, settings{})
			a, b := newBackend(t, "a"), newBackend(t, "b")
			u, none := poolOf(a, b), 0
			u.Policy, u.Retries, u.CircuitBreaker = "first", &none, breakerOf(0.5)
			r := g.create(route{Path: "/x", TargetURL: a.url(), Upstream: u})
			g.wantBody("/x", "a")
			fail(a)
			for i := range 10 {
				if got := g.send(http.MethodGet, "/x"); string(got.body) == "b" {
					break
				} else if i == 9 {
					t.Fatalf("the breaker does not open: %s", got)
				}
			}
			pool := g.pool(r.ID)
			if got := pool.Targets[0]; got.BreakerOpened == 0 {
				t.Errorf("the failing target is %+v", got)
			}
			// It recovers by itself: a probe goes through and closes it.
			a.heal()
			if name == "refused" {
				a.start()
			}
			g.waitBody("/x", "a")
			g.waitBreaker(r.ID, 0, "closed")
		})
	}
}

// TestCircuitBreakerOfAll answers 503 while the breaker of the only target is open.
func TestCircuitBreakerOfAll(t *testing.T) {
	t.Parallel()
	g := startGateway(t, settings{})
	a := newBackend(t, "a")
	a.status(502)
	u := &upstreamSettings{CircuitBreaker: breakerOf(3600)}
	r := g.create(route{Path: "/x", TargetURL: a.url(), Upstream: u})
	for range 3 {
		if got := g.send(http.MethodGet, "/x"); got.status != 502 || string(got.body) != "a" {
			t.Errorf("before it opens, the answer is %s", got)
		}
	}
	a.hits.Store(0)
	for range 5 {
		got := g.send(http.MethodGet, "/x")
		if p := wantProblem(t, got, http.StatusServiceUnavailable); p.Detail == "" {
			t.Errorf("the problem says nothing: %s", got)
		}
		if wait, err := strconv.Atoi(got.header.Get("Retry-After")); err != nil || wait < 3500 || wait > 3600 {
			t.Errorf("Retry-After is %q", got.header.Get("Retry-After"))
		}
	}
	if n := a.hits.Load(); n != 0 {
		t.Errorf("%d requests came through an open breaker", n)
	}
	g.waitBreaker(r.ID, 0, "open")

	// It is known after a reload too.
	if err := g.reload(); err != nil {
		t.Fatal(err)
	}
	g.waitStatus("/x", http.StatusServiceUnavailable)
	if n := a.hits.Load(); n != 0 {
		t.Errorf("%d requests came through after a reload", n)
	}
}

// TestCircuitBreakerOfSlow opens for answers that take too long.
func TestCircuitBreakerOfSlow(t *testing.T) {
	t.Parallel()
	g := startGateway(t, settings{})
	a := newBackend(t, "a")
	slowBackend(a)
	breaker := breakerOf(3600)
	breaker["slow"] = 0.05
	g.create(route{Path: "/x", TargetURL: a.url(), Upstream: &upstreamSettings{CircuitBreaker: breaker}})
	for range 3 {
		g.wantBody("/x", "a")
	}
	wantProblem(t, g.send(http.MethodGet, "/x"), http.StatusServiceUnavailable)
}
