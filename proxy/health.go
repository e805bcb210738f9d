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

// watchInterval is how often changes of health are looked for that neither checks
// nor requests notice. It is only about telling: what they decide takes effect at
// once.
const watchInterval = 500 * time.Millisecond

// activeChecks are a route's active checks in Caddy's form, nil for none.
func activeChecks(h *store.HealthChecks) *reverseproxy.HealthChecks {
	if h == nil || h.Active == nil {
		return nil
	}
	a := h.Active
	active := &reverseproxy.ActiveHealthChecks{
		URI: a.Path, Method: a.Method, Body: a.Body,
		Interval:     caddy.Duration(a.Interval.Duration(defaultCheckInterval)),
		Timeout:      caddy.Duration(a.Timeout.Duration(defaultCheckTimeout)),
		ExpectStatus: a.ExpectStatus, ExpectBody: a.ExpectBody,
		Passes: a.Passes, Fails: a.Fails,
		MaxSize: maxCheckBody,
	}
	if a.Path == "" {
		active.URI = "/"
	}
	if a.ExpectStatus == 0 {
		active.ExpectStatus = 2
	}
	if len(a.Headers) > 0 || a.Host != "" {
		active.Headers = make(http.Header)
		for name, value := range a.Headers {
			active.Headers.Set(name, value)
		}
		if a.Host != "" {
			active.Headers.Set("Host", a.Host)
		}
	}
	return &reverseproxy.HealthChecks{Active: active}
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
	case !t.healthy():
		return toldUnhealthy
	case t.breaker != nil && t.breaker.state() == "open":
		return toldOpen
	}
	return toldHealthy
}

// change is a change of a target's health.
type change struct {
	pool   *pool
	target *target
	to     int32
}

// maxChanges is how many changes can wait to be told. Beyond it they only count.
const maxChanges = 1024

// observe notices a change of a target's health, once however many configurations
// have the pool, and leaves it to watch to tell of it: requests must not wait for
// logs and for who listens to events.
func (g *Registry) observe(p *pool, t *target) {
	was, now := t.told.Load(), t.health()
	if now == was || !t.told.CompareAndSwap(was, now) {
		return
	}
	t.changes.Add(1)
	select {
	case g.changes <- change{p, t, now}:
	default:
	}
}

// watch tells of changes of health until ctx is done. It looks for those that no
// request or check has noticed, such as that failures no longer count.
func (g *Registry) watch(ctx context.Context) {
	ticker := time.NewTicker(watchInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case c := <-g.changes:
			g.tell(c)
		case <-ticker.C:
			for _, p := range g.pools() {
				for _, t := range p.targets {
					g.observe(p, t)
				}
			}
		}
	}
}

// tell logs a change of health and emits an event.
func (g *Registry) tell(c change) {
	event, log, text := "upstream_healthy", g.logger.Info, "upstream is healthy again"
	switch c.to {
	case toldUnhealthy:
		event, log, text = "upstream_unhealthy", g.logger.Warn, "upstream is unhealthy"
	case toldOpen:
		event, log, text = "upstream_unhealthy", g.logger.Warn, "circuit breaker of upstream is open"
	}
	log(text, zap.String("upstream", c.target.authority), zap.String("pool", c.pool.id))
	g.events.Emit(g.ctx, event, map[string]any{
		"upstream": c.target.authority, "pool": c.pool.id, "breaker_open": c.to == toldOpen,
	})
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
