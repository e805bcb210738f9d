package proxy

import (
	"context"
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
	"go.uber.org/zap"

	"github.com/isekai-gateway/isekai/store"
)

// Defaults of store.ActiveHealth and store.PassiveHealth.
const (
	defaultCheckInterval = 30 * time.Second
	defaultCheckTimeout  = 5 * time.Second
	defaultMaxFails      = 3
	defaultFailDuration  = 30 * time.Second
	maxCheckBody         = 64 << 10
)

// watchInterval is how often changes of health are looked for. What checks and
// breakers decide takes effect at once; this is for those who are told of it.
const watchInterval = 500 * time.Millisecond

// healthChecks are a route's checks in Caddy's form.
func healthChecks(h *store.HealthChecks) *reverseproxy.HealthChecks {
	if h == nil || h.Active == nil && h.Passive == nil {
		return nil
	}
	checks := new(reverseproxy.HealthChecks)
	if a := h.Active; a != nil {
		checks.Active = &reverseproxy.ActiveHealthChecks{
			URI: a.Path, Method: a.Method, Body: a.Body,
			Interval:     caddy.Duration(a.Interval.Duration(defaultCheckInterval)),
			Timeout:      caddy.Duration(a.Timeout.Duration(defaultCheckTimeout)),
			ExpectStatus: a.ExpectStatus, ExpectBody: a.ExpectBody,
			Passes: a.Passes, Fails: a.Fails,
			MaxSize: maxCheckBody,
		}
		if a.Path == "" {
			checks.Active.URI = "/"
		}
		if a.ExpectStatus == 0 {
			checks.Active.ExpectStatus = 2
		}
		if len(a.Headers) > 0 || a.Host != "" {
			checks.Active.Headers = make(http.Header)
			for name, value := range a.Headers {
				checks.Active.Headers.Set(name, value)
			}
			if a.Host != "" {
				checks.Active.Headers.Set("Host", a.Host)
			}
		}
	}
	if p := h.Passive; p != nil {
		checks.Passive = &reverseproxy.PassiveHealthChecks{
			FailDuration:     caddy.Duration(p.FailDuration.Duration(defaultFailDuration)),
			MaxFails:         p.MaxFails,
			UnhealthyStatus:  p.UnhealthyStatus,
			UnhealthyLatency: caddy.Duration(p.UnhealthyLatency.Duration(0)),
		}
		if p.MaxFails == 0 {
			checks.Passive.MaxFails = defaultMaxFails
		}
	}
	return checks
}

// The states of a target, as told in logs, events and metrics. The zero value is
// that of one of which nothing bad is known.
const (
	toldHealthy int32 = iota
	toldUnhealthy
	toldOpen // healthy, but its circuit breaker is open
)

// health is the target's state now.
func (t *target) health() int32 {
	switch {
	case !t.upstream.Healthy():
		return toldUnhealthy
	case t.breaker != nil && t.breaker.state() == "open":
		return toldOpen
	}
	return toldHealthy
}

// watch tells of changes of health until ctx is done.
func (g *Registry) watch(ctx context.Context) {
	ticker := time.NewTicker(watchInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		for _, p := range g.pools() {
			for _, t := range p.targets {
				g.tell(p, t)
			}
		}
	}
}

// tell logs a change of health and emits an event, once however many
// configurations have the pool.
func (g *Registry) tell(p *pool, t *target) {
	was, now := t.told.Load(), t.health()
	if now == was || !t.told.CompareAndSwap(was, now) {
		return
	}
	t.changes.Add(1)
	event := "upstream_healthy"
	log, text := g.logger.Info, "upstream is healthy again"
	switch now {
	case toldUnhealthy:
		event, log, text = "upstream_unhealthy", g.logger.Warn, "upstream is unhealthy"
	case toldOpen:
		event, log, text = "upstream_unhealthy", g.logger.Warn, "circuit breaker of upstream is open"
	}
	log(text, zap.String("upstream", t.authority), zap.String("pool", p.id))
	g.events.Emit(g.ctx, event, map[string]any{"upstream": t.authority, "pool": p.id, "breaker_open": now == toldOpen})
}

// pools returns the pools in use.
func (g *Registry) pools() []*pool {
	var pools []*pool
	g.forwarders.Range(func(_, value any) bool {
		// One that is just being made has no value yet.
		if f, ok := value.(*Forwarder); ok && f != nil {
			pools = append(pools, f.pool)
		}
		return true
	})
	return pools
}
