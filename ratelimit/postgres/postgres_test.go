package postgres_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	_ "modernc.org/sqlite"

	"github.com/isekai-gateway/isekai/internal/pgtest"
	"github.com/isekai-gateway/isekai/ratelimit"
	"github.com/isekai-gateway/isekai/ratelimit/backendtest"
	"github.com/isekai-gateway/isekai/ratelimit/postgres"
	"github.com/isekai-gateway/isekai/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Set(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = now
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func open(t *testing.T, dsn string, now func() time.Time) *postgres.Backend {
	t.Helper()
	b, err := postgres.Open(postgres.Options{DSN: dsn, Now: now, Log: zap.NewNop})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// migrated returns a database with the store's schema.
func migrated(t *testing.T) string {
	t.Helper()
	dsn := pgtest.New(t)
	st, err := store.Open(t.Context(), dsn, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	if err := st.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	return dsn
}

func TestBackend(t *testing.T) {
	t.Parallel()
	backendtest.Run(t, func(t *testing.T) (ratelimit.Backend, backendtest.Clock) {
		c := &clock{now: backendtest.Epoch}
		return open(t, migrated(t), c.Now), c
	})
}

var rule = ratelimit.Rule{Name: "r", Limit: 100, Window: 24 * time.Hour}

// TestReplicas has several backends on a database that nobody has prepared.
func TestReplicas(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t)
	replicas := make([]*postgres.Backend, 3)
	for i := range replicas {
		replicas[i] = open(t, dsn, nil)
	}
	charges := []ratelimit.Charge{{Rule: rule, Scope: "s", Key: "k", Cost: 1}}
	var wg sync.WaitGroup
	var mu sync.Mutex
	admitted := 0
	for i := range 300 {
		wg.Go(func() {
			for {
				_, allowed, err := replicas[i%len(replicas)].Take(t.Context(), nil, charges)
				if err != nil && strings.Contains(err.Error(), "does not exist") {
					continue // another call is making the table
				}
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					t.Error(err)
				}
				if allowed {
					admitted++
				}
				return
			}
		})
	}
	wg.Wait()
	if admitted != 100 {
		t.Errorf("%d were admitted, want 100", admitted)
	}
	// The store's migrations find the table, and keep it.
	st, err := store.Open(t.Context(), dsn, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	if err := st.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, allowed, err := replicas[0].Take(t.Context(), nil, charges); allowed || err != nil {
		t.Errorf("after the migration: %v, %v", allowed, err)
	}
}

func TestSweep(t *testing.T) {
	t.Parallel()
	dsn := migrated(t)
	c := &clock{now: backendtest.Epoch}
	b := open(t, dsn, c.Now)
	short := ratelimit.Rule{Name: "short", Limit: 5, Window: time.Minute}
	for i := range 40 {
		var charges []ratelimit.Charge
		for j := range 60 {
			charges = append(charges, ratelimit.Charge{Rule: short, Scope: "s", Key: fmt.Sprint(i, "-", j), Cost: 1})
		}
		if _, allowed, err := b.Take(t.Context(), nil, charges); err != nil || !allowed {
			t.Fatalf("taking: %v, %v", allowed, err)
		}
	}
	long := []ratelimit.Charge{{Rule: rule, Scope: "s", Key: "a client's address", Cost: 60}}
	if _, _, err := b.Take(t.Context(), nil, long); err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	sweep := func(want int) {
		t.Helper()
		if err := b.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		var rows, longest int
		if err := conn.QueryRow(t.Context(), "SELECT count(*), max(length(key)) FROM rate_limit_counters").Scan(&rows, &longest); err != nil {
			t.Fatal(err)
		}
		if rows != want || longest != 16 {
			t.Errorf("there are %d rows with keys of up to %d bytes, want %d and 16", rows, longest, want)
		}
	}
	sweep(2401)
	c.Set(backendtest.Epoch.Add(119 * time.Second))
	sweep(2401)
	c.Set(backendtest.Epoch.Add(2 * time.Minute))
	sweep(1)
	if d, err := b.Peek(t.Context(), nil, long); err != nil || d[0].Remaining != 40 {
		t.Errorf("after the sweep: %+v, %v", d, err)
	}
}

func TestOpenErrors(t *testing.T) {
	t.Parallel()
	for _, dsn := range []string{"", "postgres://user:s3cret@host:port/x", "nonsense s3cret"} {
		_, err := postgres.Open(postgres.Options{DSN: dsn, Log: zap.NewNop})
		if err == nil || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%q: %v", dsn, err)
		}
	}
}

// TestServerDown opens a backend that nobody answers, which is no error until used.
func TestServerDown(t *testing.T) {
	t.Parallel()
	server := pgtest.NewServer(t)
	server.Stop(t)
	b := open(t, server.DSN(), nil)
	charges := []ratelimit.Charge{{Rule: rule, Scope: "s", Key: "k", Cost: 1}}
	if _, allowed, err := b.Take(t.Context(), nil, charges); err == nil || allowed {
		t.Errorf("without a server: %v, %v", allowed, err)
	}
	server.Start(t)
	if _, allowed, err := b.Take(t.Context(), nil, charges); err != nil || !allowed {
		t.Errorf("with the server: %v, %v", allowed, err)
	}
}
