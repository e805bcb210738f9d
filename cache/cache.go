// Package cache is a bounded in-memory cache whose entries expire when they
// have not been used for a while. It wraps otter with the two things that a
// gateway adds: values that own resources and must be released exactly once,
// and a clean-up worker with an owner that stops it.
package cache

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/maypok86/otter/v2"
	"github.com/maypok86/otter/v2/stats"
)

// Defaults of Options.
const (
	DefaultTTL             = 5 * time.Minute
	DefaultCleanupInterval = time.Minute
	DefaultMaxSize         = 10_000
)

// Options configures a Cache. The zero value takes the defaults.
type Options[V any] struct {
	// How long an entry stays after its last use. Default: 5m.
	TTL time.Duration

	// How often expired entries are removed in the background. Default: 1m.
	CleanupInterval time.Duration

	// The most entries; beyond it those least likely to be used again go.
	// Default: 10,000.
	MaxSize int

	// Called once for every value that leaves the cache or that was loaded but
	// not kept. It must not block and must not call the cache.
	Release func(V)
}

// Cache maps keys to values that are loaded on first use. It is safe for
// concurrent use. Make one with New and end it with Close.
type Cache[K comparable, V comparable] struct {
	entries *otter.Cache[K, V]
	release func(V)
	closed  atomic.Bool
	misses  atomic.Uint64
}

// New returns an empty cache and starts its clean-up worker.
func New[K comparable, V comparable](o Options[V]) (*Cache[K, V], error) {
	if o.TTL == 0 {
		o.TTL = DefaultTTL
	}
	if o.CleanupInterval == 0 {
		o.CleanupInterval = DefaultCleanupInterval
	}
	if o.MaxSize == 0 {
		o.MaxSize = DefaultMaxSize
	}
	if o.TTL < 0 || o.CleanupInterval < 0 || o.MaxSize < 0 {
		return nil, errors.New("ttl, cleanup interval and maximum size must not be negative")
	}
	c := &Cache[K, V]{release: o.Release}
	if c.release == nil {
		c.release = func(V) {}
	}
	var err error
	c.entries, err = otter.New(&otter.Options[K, V]{
		MaximumSize:      o.MaxSize,
		ExpiryCalculator: otter.ExpiryAccessing[K, V](o.TTL),
		StatsRecorder:    stats.NewCounter(),
		Clock:            clock{cleanup: o.CleanupInterval},
		// Only the atomic handler is certain to have run when a call returns,
		// which a reload that counts what is left relies on.
		OnAtomicDeletion: func(e otter.DeletionEvent[K, V]) { c.release(e.Value) },
	})
	if err != nil {
		return nil, fmt.Errorf("making cache: %w", err)
	}
	return c, nil
}

// ErrClosed says that the cache was closed.
var ErrClosed = errors.New("cache is closed")

// Lookup returns the value for key if it is there.
func (c *Cache[K, V]) Lookup(key K) (V, bool) { return c.entries.GetIfPresent(key) }

// Get returns the value for key, loading it if it isn't there. Of several
// callers that miss the same key at once, one loads and the others wait. An
// error of load is returned and not kept.
func (c *Cache[K, V]) Get(ctx context.Context, key K, load func(context.Context, K) (V, error)) (V, error) {
	if v, ok := c.entries.GetIfPresent(key); ok {
		return v, nil
	}
	c.misses.Add(1)
	var zero V
	if c.closed.Load() {
		return zero, ErrClosed
	}

	// An entry invalidated while it loads is loaded again, and the first result
	// is nobody's but ours to release.
	var loaded []V
	v, err := c.entries.Get(ctx, key, otter.LoaderFunc[K, V](func(ctx context.Context, key K) (V, error) {
		v, err := load(ctx, key)
		if err == nil {
			loaded = append(loaded, v)
		}
		return v, err
	}))
	for _, l := range loaded {
		if err != nil || l != v {
			c.release(l)
		}
	}
	if err != nil {
		return zero, err
	}
	if c.closed.Load() {
		// Close ran between the check above and the insertion.
		c.entries.Invalidate(key)
	}
	return v, nil
}

// Invalidate removes the entry for key, if any.
func (c *Cache[K, V]) Invalidate(key K) { c.entries.Invalidate(key) }

// Stats are a cache's counters since it was made.
type Stats struct {
	Size      int    `json:"size"`      // entries now, about
	Hits      uint64 `json:"hits"`      // look-ups that found an entry
	Misses    uint64 `json:"misses"`    // look-ups that didn't
	Evictions uint64 `json:"evictions"` // entries that expired or made room
	Failures  uint64 `json:"failures"`  // loads that failed
}

// Stats returns the counters.
func (c *Cache[K, V]) Stats() Stats {
	s := c.entries.Stats()
	return Stats{
		Size:      c.entries.EstimatedSize(),
		Hits:      s.Hits,
		Misses:    c.misses.Load(), // otter sees each of them twice
		Evictions: s.Evictions,
		Failures:  s.LoadFailures,
	}
}

// Close stops the clean-up worker, waits for it, and releases all values.
// Later calls of Get fail unless the value is still being loaded.
func (c *Cache[K, V]) Close() {
	if c.closed.Swap(true) {
		return
	}
	c.entries.StopAllGoroutines()
	c.entries.InvalidateAll()
}

// clock is real time with the caller's clean-up interval in place of otter's.
type clock struct{ cleanup time.Duration }

func (clock) NowNano() int64 { return time.Now().UnixNano() }

func (c clock) Tick(time.Duration) <-chan time.Time { return time.Tick(c.cleanup) }
