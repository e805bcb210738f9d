package main

import (
	"context"
	"fmt"
	"hash/maphash"
	"os"
	"sync"
	"time"

	golimiter "github.com/sethvargo/go-limiter"
	"github.com/sethvargo/go-limiter/memorystore"
	"github.com/throttled/throttled/v2"
	"github.com/throttled/throttled/v2/store/memstore"
	ulule "github.com/ulule/limiter/v3"
	"github.com/ulule/limiter/v3/drivers/store/memory"
	"golang.org/x/time/rate"

	"github.com/isekai-gateway/isekai/bench/internal/report"
	"github.com/isekai-gateway/isekai/ratelimit"
)

// The keys of all limiters that have a bound are bounded by this much more than
// there are, so that none of them evicts.
func room(keys int) int { return keys + keys/10 }

var rule = ratelimit.Rule{Name: "route", Limit: limit, Window: window}

func libraries(keys int) []contender {
	return []contender{
		{name: "isekai, Limiter.Allow", group: groupLibrary, ours: true, start: func() (*instance, error) {
			l := ratelimit.New(ratelimit.Config{MaxKeys: room(keys)})
			l.Start()
			return shared(func(key string) bool { return l.Allow(rule, "route:1", key, 1).Allowed }, l.Close), nil
		}},
		{name: "isekai, Limiter.Take", group: groupLibrary, ours: true, start: func() (*instance, error) {
			l := ratelimit.New(ratelimit.Config{MaxKeys: room(keys)})
			l.Start()
			return &instance{worker: func() decide { return taker(l) }, stop: l.Close}, nil
		}},
		{name: named("x/time/rate, 256 shards", "golang.org/x/time"), group: groupLibrary, start: func() (*instance, error) {
			b := newBuckets()
			return shared(func(key string) bool { return b.allow(time.Now(), key) }, func() {}), nil
		}},
		{name: named("throttled, map", "github.com/throttled/throttled/v2"), group: groupLibrary, start: func() (*instance, error) {
			return newThrottled(0)
		}},
		{name: named("throttled, LRU", "github.com/throttled/throttled/v2"), group: groupLibrary, start: func() (*instance, error) {
			return newThrottled(room(keys))
		}},
		{name: named("go-limiter, memorystore", "github.com/sethvargo/go-limiter"), group: groupLibrary, start: newGoLimiter},
		{name: named("ulule/limiter, memory", "github.com/ulule/limiter/v3"), group: groupLibrary, start: newUlule},
	}
}

// reference limits nothing: it hashes the key, which every limiter has to read from
// memory too. What it takes is the least that this program could find.
func reference() contender {
	seed := maphash.MakeSeed()
	return contender{name: "(no limiter: hash the key)", group: groupLibrary, start: func() (*instance, error) {
		return shared(func(key string) bool { return maphash.String(seed, key) != 0 }, func() {}), nil
	}}
}

// named adds the version to a name.
func named(name, module string) string {
	if version := report.ModuleVersion(module); version != "" {
		return name + " " + version
	}
	return name
}

// taker decides as the gateway does, with space of its own for the answer.
func taker(l *ratelimit.Limiter) decide {
	ctx := context.Background()
	charges := []ratelimit.Charge{{Rule: rule, Scope: "route:1", Cost: 1}}
	var space [1]ratelimit.Decision
	return func(key string) bool {
		charges[0].Key = key
		_, allowed, err := l.Take(ctx, space[:0], charges)
		return allowed && err == nil
	}
}

// buckets is how golang.org/x/time/rate, which knows no keys, is commonly given
// some: a map of token buckets in shards. It has no bound and forgets nothing.
type buckets struct {
	seed   maphash.Seed
	shards [256]struct {
		mu   sync.Mutex
		keys map[string]*rate.Limiter
		_    [48]byte // the next lock is in another cache line
	}
}

func newBuckets() *buckets {
	b := &buckets{seed: maphash.MakeSeed()}
	for i := range b.shards {
		b.shards[i].keys = make(map[string]*rate.Limiter)
	}
	return b
}

func (b *buckets) allow(now time.Time, key string) bool {
	s := &b.shards[maphash.String(b.seed, key)%uint64(len(b.shards))]
	s.mu.Lock()
	bucket := s.keys[key]
	if bucket == nil {
		bucket = rate.NewLimiter(rate.Every(window/limit), limit)
		s.keys[key] = bucket
	}
	s.mu.Unlock()
	return bucket.AllowN(now, 1)
}

func quota() throttled.RateQuota {
	return throttled.RateQuota{MaxRate: throttled.PerDuration(limit, window), MaxBurst: limit - 1}
}

// newThrottled returns throttled's GCRA over a map, or an LRU of so many keys.
func newThrottled(maxKeys int) (*instance, error) {
	store, err := memstore.NewCtx(maxKeys)
	if err != nil {
		return nil, fmt.Errorf("making throttled's store: %w", err)
	}
	l, err := throttled.NewGCRARateLimiterCtx(store, quota())
	if err != nil {
		return nil, fmt.Errorf("making throttled's limiter: %w", err)
	}
	ctx := context.Background()
	return shared(func(key string) bool {
		// It gives up with an error after ten lost races for one key.
		limited, _, err := l.RateLimitCtx(ctx, key, 1)
		return !limited && err == nil
	}, func() {}), nil
}

func newGoLimiter() (*instance, error) {
	store, err := memorystore.New(&memorystore.Config{Tokens: limit, Interval: window})
	if err != nil {
		return nil, fmt.Errorf("making go-limiter's store: %w", err)
	}
	return goLimiter(store), nil
}

func goLimiter(store golimiter.Store) *instance {
	ctx := context.Background()
	return shared(func(key string) bool {
		_, _, _, ok, err := store.Take(ctx, key)
		return ok && err == nil
	}, func() {
		if err := store.Close(ctx); err != nil {
			fmt.Fprintln(os.Stderr, "closing go-limiter's store:", err)
		}
	})
}

func newUlule() (*instance, error) {
	// Its cleaning goroutine would end only when the collector finds the store.
	store := memory.NewStoreWithOptions(ulule.StoreOptions{Prefix: ulule.DefaultPrefix})
	l := ulule.New(store, ulule.Rate{Period: window, Limit: limit})
	ctx := context.Background()
	return shared(func(key string) bool {
		state, err := l.Get(ctx, key)
		return !state.Reached && err == nil
	}, func() {}), nil
}
