package gateway

import (
	"context"
	"sync/atomic"

	"go.uber.org/zap"

	"github.com/isekai-gateway/isekai/cache"
	"github.com/isekai-gateway/isekai/mirror"
)

// RequestCounters count requests since the gateway was opened. The zero value
// is ready.
type RequestCounters struct {
	total    atomic.Int64
	inFlight atomic.Int64
	refused  atomic.Int64
	failed   atomic.Int64
	shed     atomic.Int64
}

// Begin counts a request that has come in.
func (c *RequestCounters) Begin() {
	c.total.Add(1)
	c.inFlight.Add(1)
}

// End counts the request's answer: 4xx as refused, 5xx as failed.
func (c *RequestCounters) End(status int) {
	c.inFlight.Add(-1)
	switch {
	case status >= 500:
		c.failed.Add(1)
	case status >= 400:
		c.refused.Add(1)
	}
}

// Shed counts a request, whose answer End has counted, as one that was refused
// because too many were in flight, in the gateway or of its route.
func (c *RequestCounters) Shed() { c.shed.Add(1) }

// InFlight returns how many requests are being answered.
func (c *RequestCounters) InFlight() int64 { return c.inFlight.Load() }

// RequestStats is a snapshot of RequestCounters.
type RequestStats struct {
	Total    int64 `json:"total"`     // requests that reached the handler
	InFlight int64 `json:"in_flight"` // of these, not answered yet
	Refused  int64 `json:"refused"`   // answered 4xx
	Failed   int64 `json:"failed"`    // answered 5xx, or broken off
	Shed     int64 `json:"shed"`      // of these, refused because too many were in flight
}

// Snapshot returns the counts now.
func (c *RequestCounters) Snapshot() RequestStats {
	return RequestStats{
		Total:    c.total.Load(),
		InFlight: c.inFlight.Load(),
		Refused:  c.refused.Load(),
		Failed:   c.failed.Load(),
		Shed:     c.shed.Load(),
	}
}

// cacheCounts adds up what caches have counted.
type cacheCounts cache.Stats

func (c *cacheCounts) add(one cache.Stats) {
	c.Hits += one.Hits
	c.Misses += one.Misses
	c.Evictions += one.Evictions
	c.Failures += one.Failures
}

// CacheStats adds up the pipeline caches of all subscribers, and what those have counted
// that were there before a reload. During one there are two.
func (g *Gateway) CacheStats() cache.Stats {
	g.subscribers.Lock()
	defer g.subscribers.Unlock()
	sum, size := g.subscribers.gone, 0
	for s := range g.subscribers.set {
		one := s.CacheStats()
		sum.add(one)
		size += one.Size
	}
	sum.Size = size
	return cache.Stats(sum)
}

// MirrorStats returns what became of the copies for mirrors in this process: the
// routes', and those of the sites' isekai_mirror handlers.
func (g *Gateway) MirrorStats() mirror.Stats { return g.Mirror.Stats().Add(mirror.SiteStats()) }

// logStats writes the periodic line with the counters.
func (g *Gateway) logStats(context.Context) {
	table := g.Table()
	if table == nil {
		return
	}
	requests, cached, copies := g.Requests.Snapshot(), g.CacheStats(), g.MirrorStats()
	logged := g.RequestLog.Stats()
	g.cfg.Log().Info("stats",
		zap.Int64("requests", requests.Total),
		zap.Int64("in_flight", requests.InFlight),
		zap.Int64("refused", requests.Refused),
		zap.Int64("errors", requests.Failed),
		zap.Int64("shed", requests.Shed),
		zap.Int("routes", table.Len()),
		zap.Int("routes_served", table.Served()),
		zap.Int64("revision", table.Revision()),
		zap.Int("cache_size", cached.Size),
		zap.Uint64("cache_hits", cached.Hits),
		zap.Uint64("cache_misses", cached.Misses),
		zap.Uint64("cache_evictions", cached.Evictions),
		zap.Int("log_queued", logged.Queued),
		zap.Uint64("log_written", logged.Written),
		zap.Uint64("log_dropped", logged.Dropped),
		zap.Int64("mirror_sent", copies.Sent),
		zap.Int64("mirror_failed", copies.Failed),
		zap.Int64("mirror_queue_full", copies.Dropped.QueueFull),
		zap.Int64("mirror_too_large", copies.Dropped.TooLarge),
		zap.Int64("mirror_incomplete", copies.Dropped.Incomplete),
		zap.Int64("mirror_skipped", copies.Dropped.Skipped),
		zap.Int64("mirror_shutdown", copies.Dropped.Shutdown),
	)
}
