package proxy

import (
	"fmt"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/isekai-gateway/isekai/store"
)

func init() {
	caddy.RegisterModule(new(CircuitBreaker))
}

// CircuitBreaker is the circuit breaker of routes for a reverse_proxy that is
// configured without them. Caddy's hook sets it bounds that a route's has not: one
// breaker serves all upstreams of the handler, it hears of answers only, not of
// upstreams that can't be reached (passive health checks count those), and while it
// tries whether an upstream has recovered, more requests than probes may pass.
//
// Caddy has no syntax for circuit breakers in a Caddyfile.
type CircuitBreaker struct {
	// The share of failures, above 0 and up to 1, at which it opens. Default: 0.5.
	FailureRatio float64 `json:"failure_ratio,omitempty"`

	// The answers in the window below which it does not open. Default: 20.
	MinRequests int `json:"min_requests,omitempty"`

	// The window that slides over the answers that count. Default: 10s.
	Window caddy.Duration `json:"window,omitempty"`

	// How long it stays open before it tries. Default: 10s.
	OpenFor caddy.Duration `json:"open_for,omitempty"`

	// How many answers in a row must succeed until it closes. Default: 3.
	Probes int `json:"probes,omitempty"`

	// The statuses that are failures, or the first digits of several. Default: 5.
	Statuses []int `json:"statuses,omitempty"`

	// How long an answer may take to begin without being a failure. Default: 0, as
	// long as it likes.
	Slow caddy.Duration `json:"slow,omitempty"`

	breaker *breaker
}

// CaddyModule returns the Caddy module information.
func (*CircuitBreaker) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.reverse_proxy.circuit_breakers.isekai",
		New: func() caddy.Module { return new(CircuitBreaker) },
	}
}

// Provision implements caddy.Provisioner.
func (c *CircuitBreaker) Provision(caddy.Context) error {
	settings := &store.CircuitBreaker{
		FailureRatio: c.FailureRatio, MinRequests: c.MinRequests, Probes: c.Probes, Statuses: c.Statuses,
		Window: seconds(c.Window), OpenFor: seconds(c.OpenFor), Slow: seconds(c.Slow),
	}
	var errs store.FieldErrors
	validateBreaker(&errs, "", settings)
	if err := errs.Err(); err != nil {
		return fmt.Errorf("checking circuit breaker: %w", err)
	}
	c.breaker = newBreaker(settings)
	return nil
}

func seconds(d caddy.Duration) store.Seconds { return store.Seconds(time.Duration(d).Seconds()) }

// OK implements reverseproxy.CircuitBreaker. It is asked any number of times for a
// request, so it changes nothing.
func (c *CircuitBreaker) OK() bool { return c.breaker.wait(time.Now()) == 0 }

// RecordMetric implements reverseproxy.CircuitBreaker.
func (c *CircuitBreaker) RecordMetric(status int, latency time.Duration) {
	if done, ok := c.breaker.admit(); ok {
		done(c.breaker.judge(status, latency))
	}
}

// Interface guards
var (
	_ caddy.Provisioner           = (*CircuitBreaker)(nil)
	_ reverseproxy.CircuitBreaker = (*CircuitBreaker)(nil)
)
