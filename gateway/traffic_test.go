package gateway_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/isekai-gateway/isekai/cache"
	"github.com/isekai-gateway/isekai/gateway"
	"github.com/isekai-gateway/isekai/internal/pgtest"
	"github.com/isekai-gateway/isekai/stats"
)

// requests returns how many requests of a route all nodes have counted within a day.
func (b bundle) requests(id int64) uint64 {
	if t := b.Traffic.Reports(true)[3].Routes[id]; t != nil {
		return t.Requests
	}
	return 0
}

func (b bundle) observe(id int64, times int) {
	for range times {
		b.Traffic.Observe(id, &stats.Request{Method: "GET", Status: 200, Took: time.Millisecond})
	}
}

func quickTraffic(cfg *gateway.Config) { cfg.TrafficInterval = 10 * time.Millisecond }

// What was counted is there after a restart and on other nodes, once.
func TestTrafficIsKept(t *testing.T) {
	t.Parallel()
	for name, dsn := range map[string]string{"SQLite": sqliteDSN(t), "PostgreSQL": pgtest.New(t)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			first := open(t, dsn, quickTraffic)
			id := first.create(t, "/a").ID
			other := open(t, dsn, quickTraffic)
			first.observe(id, 5)
			began := time.Now()
			if err := first.Close(); err != nil {
				t.Fatal(err)
			}
			eventually(t, "another node knows", func() bool { return other.requests(id) == 5 })
			other.observe(id, 2)
			if err := other.Close(); err != nil {
				t.Fatal(err)
			}
			again := open(t, dsn, nil) // at once, not after an interval
			eventually(t, "it is known after a restart", func() bool { return again.requests(id) == 7 })
			if at := again.Traffic.LastHit(id); at.Before(began.Add(-2*time.Second)) || at.After(time.Now()) {
				t.Errorf("last hit at %v, and it is %v", at, time.Now())
			}
			if got := again.requests(stats.None); got != 0 {
				t.Errorf("%d requests without a route", got)
			}
		})
	}
}

// A cache that is too small is told of, once.
func TestCacheHealth(t *testing.T) {
	t.Parallel()
	var misses atomic.Uint64
	g := open(t, sqliteDSN(t), func(cfg *gateway.Config) { cfg.HealthInterval = time.Millisecond })
	cancel := g.Subscribe(&gateway.Subscriber{CacheStats: func() cache.Stats {
		n := misses.Load()
		return cache.Stats{Misses: n, Evictions: n}
	}})
	defer cancel()
	told := func(text string) func() bool {
		return func() bool { return g.logs.FilterMessageSnippet(text).Len() == 1 }
	}
	misses.Store(1000)
	eventually(t, "the cache is too small", told("too small"))
	eventually(t, "it is large enough", told("large enough"))
	eventually(t, "all is well", func() bool { return g.Health().Status == gateway.StatusOK })
}

// The numbers of a route that is deleted go with it, but not those of the gateway.
func TestTrafficOfDeletedRoute(t *testing.T) {
	t.Parallel()
	g := open(t, sqliteDSN(t), quickTraffic)
	row := g.create(t, "/a")
	g.observe(row.ID, 3)
	if err := g.Delete(t.Context(), row.ID, 0, by); err != nil {
		t.Fatal(err)
	}
	eventually(t, "its series is gone", func() bool {
		for _, s := range g.Traffic.Series() {
			if s.Route == row.ID {
				return false
			}
		}
		return true
	})
	sum := g.Traffic.Reports(false)[3].Total()
	if sum.Requests != 3 {
		t.Errorf("%d requests in all", sum.Requests)
	}
}

// Statistics are written where a full disk or a database that became read-only shows
// first. Routes are served all the same, and the store is not called down and up again.
func TestStatisticsThatAreNotKept(t *testing.T) {
	t.Parallel()
	const down, lost, found = "route store is down", "the store does not keep statistics of requests", "the store keeps statistics of requests again"
	dsn := pgtest.New(t)
	g := open(t, dsn, quickTraffic)
	p := openSQL(t, dsn)
	logged := func(message string) func() bool {
		return func() bool { return g.logs.FilterMessage(message).Len() > 0 }
	}
	p.exec("ALTER TABLE request_stats RENAME TO elsewhere")
	eventually(t, "it is told", func() bool { return logged(lost)() || logged(down)() })
	p.exec("ALTER TABLE elsewhere RENAME TO request_stats")
	eventually(t, "they are kept again", logged(found))

	p.exec("ALTER TABLE credential_uses RENAME TO elsewhere")
	g.Credentials.KeyUsed("0123456789abcdef")
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	if !logged("the store does not keep when credentials were used last")() {
		t.Error("that uses are lost is not told")
	}
	if logged(down)() || !g.StoreUp() {
		t.Errorf("the store is called down: %v", g.logs.FilterMessage(down).All())
	}
}
