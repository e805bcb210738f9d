package redis_test

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/isekai-gateway/isekai/ratelimit"
	"github.com/isekai-gateway/isekai/ratelimit/backendtest"
	"github.com/isekai-gateway/isekai/ratelimit/redis"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type clock struct{ *miniredis.Miniredis }

func (c clock) Set(t time.Time) { c.SetTime(t) }

func open(t *testing.T, edit func(*redis.Options), addresses ...string) *redis.Backend {
	t.Helper()
	opts := redis.Options{Addresses: addresses, Log: zap.NewNop}
	if edit != nil {
		edit(&opts)
	}
	b := redis.Open(opts)
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// miniredis answers CLUSTER commands as a cluster of one does, so this tests how calls
// are split. Single servers and real clusters are tested below.
func TestBackend(t *testing.T) {
	t.Parallel()
	backendtest.Run(t, func(t *testing.T) (ratelimit.Backend, backendtest.Clock) {
		server := miniredis.RunT(t)
		server.SetTime(backendtest.Epoch)
		return open(t, nil, server.Addr()), clock{server}
	})
}

var hour = ratelimit.Rule{Name: "r", Limit: 100, Window: time.Hour}

func one(key string) []ratelimit.Charge {
	return []ratelimit.Charge{{Rule: hour, Scope: "s", Key: key, Cost: 1}}
}

func TestReplicasShare(t *testing.T) {
	t.Parallel()
	server := miniredis.RunT(t)
	var wg sync.WaitGroup
	var mu sync.Mutex
	admitted := 0
	for range 3 {
		b := open(t, nil, server.Addr())
		for range 100 {
			wg.Go(func() {
				_, allowed, err := b.Take(t.Context(), nil, one("k"))
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					t.Error(err)
				}
				if allowed {
					admitted++
				}
			})
		}
	}
	wg.Wait()
	if admitted != 100 {
		t.Errorf("%d were admitted, want 100", admitted)
	}
}

func TestNamesAndExpiry(t *testing.T) {
	t.Parallel()
	server := miniredis.RunT(t)
	b := open(t, func(o *redis.Options) { o.Prefix = "mine:" }, server.Addr())
	charges := one("198.51.100.7")
	if _, _, err := b.Take(t.Context(), nil, charges); err != nil {
		t.Fatal(err)
	}
	names := server.Keys()
	if len(names) != 1 || !strings.HasPrefix(names[0], "mine:{") || strings.Contains(names[0], "198.51") {
		t.Fatalf("the names are %q", names)
	}
	if ttl := server.TTL(names[0]); ttl != 2*time.Hour {
		t.Errorf("it expires in %v, want 2h", ttl)
	}
	// Asking leaves nothing behind, nor does a refusal.
	if _, err := b.Peek(t.Context(), nil, one("other")); err != nil {
		t.Fatal(err)
	}
	tooMuch := one("third")
	tooMuch[0].Cost = 101
	if _, allowed, err := b.Take(t.Context(), nil, tooMuch); err != nil || allowed {
		t.Errorf("too much: %v, %v", allowed, err)
	}
	server.FastForward(2 * time.Hour)
	if names := server.Keys(); len(names) != 0 {
		t.Errorf("what is left is %q", names)
	}
}

func TestPassword(t *testing.T) {
	t.Parallel()
	server := miniredis.RunT(t)
	server.RequireUserAuth("gateway", "s3cret")
	good := open(t, func(o *redis.Options) { o.Username, o.Password, o.DB = "gateway", "s3cret", 3 }, server.Addr())
	if _, _, err := good.Take(t.Context(), nil, one("k")); err != nil {
		t.Errorf("with the password: %v", err)
	}
	if names := server.DB(3).Keys(); len(names) != 1 {
		t.Errorf("database 3 has %q", names)
	}
	bad := open(t, func(o *redis.Options) { o.Username, o.Password = "gateway", "wr0ng" }, server.Addr())
	if _, _, err := bad.Take(t.Context(), nil, one("k")); err == nil || strings.Contains(err.Error(), "wr0ng") {
		t.Errorf("with a wrong password: %v", err)
	}
}

// TestServerDown opens a backend that nobody answers, which is no error until used,
// and has the server come, go and come back.
func TestServerDown(t *testing.T) {
	t.Parallel()
	server := miniredis.RunT(t)
	address := server.Addr()
	server.Close()
	b := open(t, nil, address)
	if _, allowed, err := b.Take(t.Context(), nil, one("k")); err == nil || allowed {
		t.Errorf("without a server: %v, %v", allowed, err)
	}
	for range 2 {
		if err := server.StartAddr(address); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
			_, _, err := b.Take(t.Context(), nil, one("k"))
			if err == nil {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("with the server: %v", err)
			}
		}
		server.Close()
		if _, _, err := b.Take(t.Context(), nil, one("k")); err == nil {
			t.Error("a server that is gone charges")
		}
	}
}
