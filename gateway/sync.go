package gateway

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"go.uber.org/zap"

	"github.com/isekai-gateway/isekai/internal/worker"
	"github.com/isekai-gateway/isekai/routing"
	"github.com/isekai-gateway/isekai/store"
)

// watch loads the routes as soon as the store answers and then follows its
// revision. It never gives up: the table that runs is served meanwhile.
func (g *Gateway) watch(ctx context.Context) {
	g.firstSync(ctx)
	close(g.attempted)
	select {
	case <-g.begun:
	case <-ctx.Done():
		return
	}

	ready := g.prepare(ctx)
	close(g.prepared)
	for !ready {
		// What others change is served meanwhile, if it can be read.
		retry := time.NewTimer(jitter(min(g.pollInterval(), DefaultPollInterval)))
		g.follow(ctx, retry.C)
		retry.Stop()
		if ctx.Err() != nil {
			return
		}
		ready = g.prepare(ctx)
	}
	close(g.ready)
	g.RequestLog.Start() // it has a table to write to
	g.follow(ctx, nil)
}

// follow brings the table to every revision as it is announced, and asks for others
// now and then, until there is something to receive from until.
func (g *Gateway) follow(ctx context.Context, until <-chan time.Time) {
	var last time.Time
	for {
		var err error
		timer := time.NewTimer(jitter(g.pollInterval()))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-until:
			timer.Stop()
			return
		case <-timer.C:
			err = g.poll(ctx)
		case <-g.news.wake:
			timer.Stop()
			if rest := debounce - time.Since(last); rest > 0 && !worker.Sleep(ctx, rest) {
				return
			}
			last = time.Now()
			if table := g.Table(); table != nil && g.news.nothing(table.Revision()) && !g.stale.Load() {
				continue
			}
			err = g.sync(ctx)
		}
		if err != nil {
			g.noteStore(err)
		}
	}
}

// poll is sync for when there is probably nothing new, which it finds out in the
// cheapest way.
func (g *Gateway) poll(ctx context.Context) error {
	table := g.table.Load()
	if table == nil || g.stale.Load() {
		return g.sync(ctx)
	}
	revision, mark, err := g.store.RevisionMark(ctx)
	if err != nil {
		return fmt.Errorf("reading revision: %w", err)
	}
	g.heard(revision)
	if g.news.replaced(revision, mark) {
		g.cfg.Log().Warn("the store has another change under the number of the last one, as after a dump was restored; loading all routes",
			zap.Int64("revision", revision))
		g.stale.Store(true)
	}
	if revision != table.Revision() || g.stale.Load() {
		return g.sync(ctx)
	}
	g.noteStore(nil)
	return nil
}

// prepare makes an unknown store ready and fills the table, and reports whether both
// went well. A store that is not ready is read all the same: its owner may have yet to
// migrate it, and the routes change meanwhile.
func (g *Gateway) prepare(ctx context.Context) bool {
	step := "migrating the store's schema"
	err := g.migrate(ctx)
	if err == nil {
		step = "seeding the store"
		err = g.seed(ctx)
	}
	if err == nil {
		g.notePrepared("", nil)
		// Whoever changes routes from now on waits for this gateway, too.
		g.report(ctx, true)
	}
	unread := g.sync(ctx)
	if ctx.Err() != nil {
		return false
	}
	// One that does not answer at all is down, which is told already.
	if err != nil && (unread == nil || g.store.Ping(ctx) == nil) {
		g.notePrepared(step, err)
	}
	if unread == nil {
		return err == nil
	}
	if err == nil {
		err = unread
	}
	g.noteStore(err)
	return false
}

func (g *Gateway) migrate(ctx context.Context) error {
	if err := g.store.Migrate(ctx); err != nil {
		return fmt.Errorf("migrating schema: %w", err)
	}
	if st := g.store.Stats(); st.Schema > st.SchemaKnown {
		g.cfg.Log().Warn("the store's schema is newer than this program, which serves all the same; update it",
			zap.Int64("schema", st.Schema), zap.Int64("known", st.SchemaKnown))
	}
	return nil
}

func (g *Gateway) seed(ctx context.Context) error {
	if len(g.cfg.Seed) == 0 {
		return nil
	}
	seeded, err := g.store.Seed(ctx, g.cfg.Seed, store.Author{Actor: "seed"})
	if err != nil {
		return fmt.Errorf("seeding routes: %w", err)
	}
	if seeded {
		g.cfg.Log().Info("seeded routes into an empty store", zap.Int("routes", len(g.cfg.Seed)))
	}
	return nil
}

// sync brings the table to the store's revision. Of several calls at once one
// works and the others wait for it, then look again. It is for when there probably is
// something new; see poll.
func (g *Gateway) sync(ctx context.Context) error {
	select {
	case g.syncing <- struct{}{}:
		defer func() { <-g.syncing }()
	case <-ctx.Done():
		return ctx.Err()
	}

	old := g.table.Load()
	if old == nil || g.stale.Load() {
		return g.load(ctx, old)
	}
	changes, err := g.store.Changes(ctx, old.Revision())
	if errors.Is(err, store.ErrResync) {
		return g.load(ctx, old)
	}
	if err != nil {
		return fmt.Errorf("reading changes: %w", err)
	}
	g.noteStore(nil)
	if changes.Revision == old.Revision() {
		return nil
	}
	// Before the table has the revision: whoever sees it there relies on this.
	g.Credentials.forget(changes.Credentials)
	if len(changes.Credentials) > 0 {
		g.credentialsChanged.Store(true)
	}
	g.publish(old, old.Apply(changes.Routes, changes.Revision), ids(changes.Routes))
	if !changes.Committed.IsZero() {
		g.Propagation.Observe(time.Since(changes.Committed).Seconds())
	}
	return nil
}

// load reads all routes. Those that are the same in old keep their compiled form.
func (g *Gateway) load(ctx context.Context, old *routing.Table) error {
	stale := g.stale.Swap(false)
	rows, revision, err := g.store.Load(ctx)
	if err != nil {
		if stale {
			g.stale.Store(true)
		}
		return fmt.Errorf("loading routes: %w", err)
	}
	g.noteStore(nil)
	g.Credentials.forgetAll()
	g.credentialsChanged.Store(true)
	if old == nil {
		g.publish(nil, routing.NewTable(rows, revision), ids(rows))
		return nil
	}
	if revision < old.Revision() {
		g.cfg.Log().Warn("store went back to an earlier revision",
			zap.Int64("from", old.Revision()), zap.Int64("to", revision))
	}
	next := old.Replace(rows, revision)
	touched := ids(rows)
	for route := range old.Routes() {
		if next.Route(route.ID) == nil {
			touched = append(touched, route.ID)
		}
	}
	g.publish(old, next, touched)
	return nil
}

// publish makes next visible and tells the subscribers which compiled routes are
// new in it and which of old are not part of it.
func (g *Gateway) publish(old, next *routing.Table, touched []int64) {
	g.table.Store(next)
	g.reportApplied()
	g.tableChanged()
	var added, dropped []*routing.Route
	for _, id := range touched {
		now := next.Route(id)
		if now != nil && now.Problem() != nil {
			g.cfg.Log().Error("route can't be served", zap.Int64("route", id), zap.Error(now.Problem()))
			now = nil
		}
		var was *routing.Route
		if old != nil {
			was = old.Compiled(id)
		}
		switch {
		case was == now:
		case now != nil && was != nil:
			added, dropped = append(added, now), append(dropped, was)
		case now != nil:
			added = append(added, now)
		default:
			dropped = append(dropped, was)
		}
	}
	if len(added)+len(dropped) > 0 {
		g.eachSubscriber(func(s *Subscriber) { s.Changed(added, dropped) })
	}
	if old == nil {
		g.cfg.Log().Info("routes loaded",
			zap.Int("routes", next.Len()), zap.Int("served", next.Served()), zap.Int64("revision", next.Revision()))
		return
	}
	g.cfg.Log().Debug("routes changed",
		zap.Int("dropped", len(dropped)), zap.Int64("revision", next.Revision()))
}

func ids(rows []*store.Route) []int64 {
	out := make([]int64, len(rows))
	for i, row := range rows {
		out[i] = row.ID
	}
	return out
}

// jitter spreads d by a quarter either way, so that many replicas don't ask a
// returning database all at once. It holds for any d: an interval of choice may be centuries.
func jitter(d time.Duration) time.Duration {
	least := d - d/4
	return least + rand.N(min(d/2, math.MaxInt64-1-least)+1)
}
