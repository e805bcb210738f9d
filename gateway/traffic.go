package gateway

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/isekai-gateway/isekai/stats"
	"github.com/isekai-gateway/isekai/store"
)

const (
	// maxPendingStats bounds the periods that wait for a store that is down: those of
	// an hour, with that hour.
	maxPendingStats = 61

	// hitsAtOnce bounds the routes whose last hits are written in one transaction.
	hitsAtOnce = 500

	// statsRetention is how long periods are kept in the store.
	statsRetention = 25 * time.Hour

	// lateIDs is how far below the highest id known others may yet appear.
	lateIDs = 100
)

// trafficHistory is the way of statistics between Traffic and the store. It belongs to
// the worker.
type trafficHistory struct {
	replica string
	pending []*store.StatsDocument
	hits    time.Time // up to when last hits were written

	begun bool  // what others have written was read
	last  int64 // the highest id that was read
	seen  map[int64]bool

	kept counted
}

// counted is what a gateway counts and the store keeps. It is for one goroutine at a time.
type counted struct{ failing bool }

// note logs when the store begins not to keep it, and when it does again. As with
// reports of replicas, whether the store is up is for others to say: these are writes,
// which fail alone when a disk is full.
func (c *counted) note(logger func() *zap.Logger, what string, err error) {
	switch {
	case err != nil && !c.failing:
		logger().Warn("the store does not keep "+what, zap.Error(err))
	case err == nil && c.failing:
		logger().Info("the store keeps " + what + " again")
	}
	c.failing = err != nil
}

// countTraffic is the worker that moves what Traffic counts through its windows and to
// the store.
func (g *Gateway) countTraffic(ctx context.Context) {
	ready := g.ready // what was counted before a restart is read as soon as can be
	for {
		// At round times, when windows have new parts.
		interval, now := g.cfg.TrafficInterval, time.Now()
		round := time.NewTimer(now.Truncate(interval).Add(interval).Sub(now))
		select {
		case <-ctx.Done():
			round.Stop()
			return
		case <-ready:
			round.Stop()
			ready = nil
		case <-round.C:
		}
		for _, period := range g.Traffic.Round(g.hasRoute) {
			g.traffic.add(period, g.cfg.Log)
		}
		if !g.mayWrite() {
			continue
		}
		if err := g.exchangeTraffic(ctx); ctx.Err() == nil {
			g.traffic.kept.note(g.cfg.Log, "statistics of requests", err)
		}
	}
}

func (g *Gateway) hasRoute(id int64) bool {
	table := g.Table()
	if table == nil {
		return true
	}
	_, _, ok := table.Get(id)
	return ok
}

// mayWrite says whether what only this program counts may be written: the store is up,
// and its schema is known to be what the program expects, for which Start was called.
func (g *Gateway) mayWrite() bool {
	select {
	case <-g.ready:
		return g.StoreUp()
	default:
		return false
	}
}

func (h *trafficHistory) add(p stats.Period, logger func() *zap.Logger) {
	document, err := p.Document()
	if err != nil {
		logger().Error("statistics are lost", zap.Error(err))
		return
	}
	h.pending = append(h.pending, &store.StatsDocument{Replica: h.replica, Period: p.Length, Start: p.Start, Document: document})
	if over := len(h.pending) - maxPendingStats; over > 0 {
		h.pending = h.pending[over:]
	}
}

// exchangeTraffic writes what has ended, and reads what others have written.
func (g *Gateway) exchangeTraffic(ctx context.Context) error {
	h := &g.traffic
	if !h.begun {
		hits, err := g.store.LastHits(ctx)
		if err != nil {
			return err
		}
		g.Traffic.AddHits(hits)
	}
	if err := g.saveTraffic(ctx); err != nil {
		return err
	}
	documents, err := g.store.RequestStats(ctx, h.replica, h.last-lateIDs, time.Now().Add(-statsRetention))
	if err != nil {
		return err
	}
	g.Traffic.AddOthers(h.take(documents, g.cfg.Log))
	return nil
}

// take returns the periods that were not read before.
func (h *trafficHistory) take(documents []*store.StatsDocument, logger func() *zap.Logger) []stats.Period {
	var periods []stats.Period
	for _, d := range documents {
		h.last = max(h.last, d.ID)
		// Once minutes are read as they come, hours have nothing new.
		if h.seen[d.ID] || h.begun && d.Period != time.Minute {
			continue
		}
		h.seen[d.ID] = true
		p, err := stats.ParsePeriod(d.Replica, d.Period, d.Start, d.Document)
		if err != nil {
			logger().Warn("statistics of another replica can't be read", zap.String("replica", d.Replica), zap.Error(err))
			continue
		}
		periods = append(periods, p)
	}
	for id := range h.seen {
		if id <= h.last-lateIDs {
			delete(h.seen, id)
		}
	}
	h.begun = true
	return periods
}

// saveTraffic writes the periods that wait and the routes' last hits.
func (g *Gateway) saveTraffic(ctx context.Context) error {
	h := &g.traffic
	if len(h.pending) == 0 {
		return nil
	}
	now, chunk := time.Now(), make(map[int64]time.Time)
	for id, at := range g.Traffic.HitsSince(h.hits) {
		if chunk[id] = at; len(chunk) < hitsAtOnce {
			continue
		}
		if err := g.store.SaveStats(ctx, nil, chunk); err != nil {
			return err
		}
		clear(chunk)
	}
	if err := g.store.SaveStats(ctx, h.pending, chunk); err != nil {
		return err
	}
	hourly := h.pending[len(h.pending)-1].Period == time.Hour
	h.pending, h.hits = nil, now
	if hourly {
		return g.store.PruneStats(ctx, now.Add(-statsRetention))
	}
	return nil
}

// saveLastTraffic writes the minute that is under way. The worker must have ended.
func (g *Gateway) saveLastTraffic(ctx context.Context) {
	if !g.mayWrite() {
		return
	}
	g.traffic.add(g.Traffic.Last(), g.cfg.Log)
	if err := g.saveTraffic(ctx); err != nil {
		g.cfg.Log().Warn("the last minute's statistics are lost", zap.Error(err))
	}
}
