package gateway

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/isekai-gateway/isekai/cache"
	"github.com/isekai-gateway/isekai/store"
)

// Status is the gateway's health in one word.
type Status string

// The three states of a gateway.
const (
	// StatusOK: routes are served and can be changed.
	StatusOK Status = "ok"
	// StatusDegraded: routes are served, but something needs an operator.
	StatusDegraded Status = "degraded"
	// StatusNotReady: no routes were ever loaded; requests are answered 503.
	StatusNotReady Status = "not_ready"
)

// Health is what a load balancer and an operator want to know.
type Health struct {
	Status Status `json:"status"`

	// Why the status is not ok.
	Reasons []string `json:"reasons,omitempty"`

	// The revision of the routes that are served.
	Revision int64 `json:"revision"`

	// Seconds since the served routes were last known to be current.
	TableAge float64 `json:"table_age_seconds"`
}

// healthState remembers what the last contacts with the store showed.
type healthState struct {
	sync.Mutex
	down    bool
	since   time.Time // of the last change of down
	current time.Time // when the table was last known to be at the store's revision

	// What of preparing the store does not work, and since when; empty once it did.
	unprepared      string
	unpreparedSince time.Time

	// When the snapshot was saved that the table is from; zero if it is the store's.
	snapshot time.Time

	counted   cache.Stats // at the last check
	thrashing bool        // the cache is too small for what is asked for
}

// Health judges the gateway's state now, without asking the store.
func (g *Gateway) Health() Health {
	table := g.Table()
	g.health.Lock()
	down, since, current, saved, thrashing := g.health.down, g.health.since, g.health.current, g.health.snapshot, g.health.thrashing
	unprepared, unpreparedSince := g.health.unprepared, g.health.unpreparedSince
	g.health.Unlock()

	h := Health{Status: StatusOK}
	if down {
		h.Status = StatusDegraded
		h.Reasons = append(h.Reasons, fmt.Sprintf("the route store has not answered since %s; routes can't be changed", since.UTC().Format(time.RFC3339)))
	}
	if unprepared != "" {
		h.Status = StatusDegraded
		h.Reasons = append(h.Reasons, fmt.Sprintf("%s has failed since %s, see the log; the request log and statistics are not written", unprepared, unpreparedSince.UTC().Format(time.RFC3339)))
	}
	if table == nil {
		h.Status = StatusNotReady
		h.Reasons = append(h.Reasons, ErrNotReady.Error())
		return h
	}
	if !saved.IsZero() {
		h.Status = StatusDegraded
		h.Reasons = append(h.Reasons, fmt.Sprintf("the routes are those of the snapshot of %s, since the route store has not answered since the start", saved.UTC().Format(time.RFC3339)))
	}
	h.Revision = table.Revision()
	h.TableAge = time.Since(current).Seconds()
	if log := g.RequestLog.Stats(); log.Failing {
		h.Status = StatusDegraded
		h.Reasons = append(h.Reasons, fmt.Sprintf("the request log can't be written: %d request(s) wait for it, %d were dropped", log.Queued, log.Dropped))
	}
	if thrashing {
		h.Status = StatusDegraded
		h.Reasons = append(h.Reasons, thrashingReason)
	}
	if broken := table.Broken(); broken > 0 {
		h.Status = StatusDegraded
		h.Reasons = append(h.Reasons, fmt.Sprintf("%d route(s) can't be served, see their \"error\" in /api/routes", broken))
	}
	return h
}

// StoreUp says whether the last contact with the store went well.
func (g *Gateway) StoreUp() bool {
	g.health.Lock()
	defer g.health.Unlock()
	return !g.health.down && !g.health.current.IsZero()
}

// noteStore records the outcome of a contact with the store and logs when the
// state changes, once.
func (g *Gateway) noteStore(err error) {
	if errors.Is(err, context.Canceled) {
		return
	}
	now := time.Now()
	g.health.Lock()
	first := g.health.since.IsZero()
	changed := first || g.health.down != (err != nil)
	was := g.health.since
	if changed {
		g.health.down, g.health.since = err != nil, now
	}
	if err == nil {
		g.health.current, g.health.snapshot = now, time.Time{}
	}
	g.health.Unlock()

	switch {
	case !changed:
	case err != nil:
		g.cfg.Log().Error("route store is down", zap.Error(err))
		g.news.tell() // the watcher may have set out to wait for long
	case first:
		g.cfg.Log().Info("route store is up", zap.String("driver", g.store.Stats().Driver))
	default:
		g.cfg.Log().Info("route store is up again", zap.Duration("down_for", now.Sub(was)))
	}
}

// notePrepared records what of preparing the store has failed, or that nothing has, and
// logs when that changes, once. It is apart from whether the store is up: one that can't
// be migrated may well be read.
func (g *Gateway) notePrepared(step string, err error) {
	g.health.Lock()
	was, since := g.health.unprepared, g.health.unpreparedSince
	if was != step {
		g.health.unprepared, g.health.unpreparedSince = step, time.Now()
	}
	g.health.Unlock()
	switch {
	case was == step:
	case err != nil:
		g.cfg.Log().Error("the route store can't be prepared; its routes are served if they can be read", zap.Error(err))
	default:
		g.cfg.Log().Info("the route store is prepared", zap.Duration("failed_for", time.Since(since)))
	}
}

// checkStore is the periodic health check: it notices a store that answers the
// watcher's read but has stopped answering others, and the reverse.
func (g *Gateway) checkStore(ctx context.Context) {
	if err := g.store.Ping(ctx); err != nil && ctx.Err() == nil {
		g.noteStore(fmt.Errorf("pinging: %w", err))
	}
}

// thrashingMisses is how many requests must have found their route not compiled, between
// two checks, for the cache to be called too small.
const thrashingMisses = 100

const thrashingReason = "the cache of compiled routes is too small: more requests than not compile their route anew; raise max_size"

// checkCache is the periodic check of the pipeline caches. One that is too small costs
// time at every request, and nothing else shows it.
func (g *Gateway) checkCache(context.Context) {
	now := g.CacheStats()
	g.health.Lock()
	was := g.health.counted
	hits, misses, evictions := now.Hits-was.Hits, now.Misses-was.Misses, now.Evictions-was.Evictions
	thrashing := misses >= thrashingMisses && misses > hits && evictions > misses/2
	changed := thrashing != g.health.thrashing
	g.health.counted, g.health.thrashing = now, thrashing
	g.health.Unlock()
	switch {
	case !changed:
	case thrashing:
		g.cfg.Log().Warn(thrashingReason, zap.Uint64("hits", hits), zap.Uint64("misses", misses), zap.Uint64("evictions", evictions))
	default:
		g.cfg.Log().Info("the cache of compiled routes is large enough again")
	}
}

// StoreStatus describes the store for /api/status.
type StoreStatus struct {
	Up    bool      `json:"up"`
	Since time.Time `json:"since"` // of the present state
	store.Stats
}

// StoreStatus returns the store's state and its connection pool's.
func (g *Gateway) StoreStatus() StoreStatus {
	s := StoreStatus{Up: g.StoreUp(), Stats: g.store.Stats()}
	g.health.Lock()
	s.Since = g.health.since.UTC()
	g.health.Unlock()
	return s
}
