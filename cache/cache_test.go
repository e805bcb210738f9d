package cache_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/isekai-gateway/isekai/cache"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type value struct {
	key      string
	released atomic.Int32
}

func newCache(t *testing.T, o cache.Options[*value]) *cache.Cache[string, *value] {
	t.Helper()
	o.Release = func(v *value) { v.released.Add(1) }
	c, err := cache.New[string](o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func load(_ context.Context, key string) (*value, error) { return &value{key: key}, nil }

func TestGetLoadsOnceForManyCallers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCache(t, cache.Options[*value]{})
		defer c.Close()
		var loads atomic.Int32
		slow := func(ctx context.Context, key string) (*value, error) {
			loads.Add(1)
			time.Sleep(time.Second)
			return load(ctx, key)
		}
		got := make([]*value, 20)
		var wg sync.WaitGroup
		for i := range got {
			wg.Go(func() { got[i], _ = c.Get(t.Context(), "a", slow) })
		}
		wg.Wait()
		if loads.Load() != 1 {
			t.Errorf("loaded %d times", loads.Load())
		}
		for i := range got {
			if got[i] != got[0] || got[i] == nil {
				t.Fatalf("caller %d got %v, the first got %v", i, got[i], got[0])
			}
		}
	})
}

func TestStatsCountEachLookUpOnce(t *testing.T) {
	t.Parallel()
	c := newCache(t, cache.Options[*value]{})
	for _, key := range []string{"a", "a", "b", "a"} {
		if _, err := c.Get(t.Context(), key, load); err != nil {
			t.Fatal(err)
		}
	}
	if s := c.Stats(); s.Hits != 2 || s.Misses != 2 || s.Size != 2 {
		t.Errorf("stats = %+v", s)
	}
}

func TestErrorIsReturnedAndNotKept(t *testing.T) {
	t.Parallel()
	c := newCache(t, cache.Options[*value]{})
	boom := errors.New("boom")
	if _, err := c.Get(t.Context(), "a", func(context.Context, string) (*value, error) { return nil, boom }); !errors.Is(err, boom) {
		t.Fatalf("err = %v", err)
	}
	if v, err := c.Get(t.Context(), "a", load); err != nil || v.key != "a" {
		t.Fatalf("second Get: %v, %v", v, err)
	}
	if s := c.Stats(); s.Failures != 1 || s.Size != 1 {
		t.Errorf("stats = %+v", s)
	}
}

func TestIdleEntryIsReleasedByTheWorker(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCache(t, cache.Options[*value]{TTL: 10 * time.Second, CleanupInterval: 3 * time.Second})
		defer c.Close()
		idle, _ := c.Get(t.Context(), "idle", load)
		busy, _ := c.Get(t.Context(), "busy", load)
		for range 20 {
			time.Sleep(time.Second)
			if v, _ := c.Get(t.Context(), "busy", load); v != busy {
				t.Fatal("an entry in use expired")
			}
		}
		synctest.Wait()
		if idle.released.Load() != 1 {
			t.Errorf("idle entry released %d times", idle.released.Load())
		}
		if busy.released.Load() != 0 {
			t.Error("entry in use was released")
		}
	})
}

func TestSizeIsBounded(t *testing.T) {
	t.Parallel()
	c := newCache(t, cache.Options[*value]{MaxSize: 100})
	values := make([]*value, 5000)
	for i := range values {
		values[i], _ = c.Get(t.Context(), string(rune('a'+i)), load)
	}
	c.Close()
	for i, v := range values {
		if v.released.Load() != 1 {
			t.Fatalf("value %d released %d times", i, v.released.Load())
		}
	}
	if s := c.Stats(); s.Evictions == 0 {
		t.Errorf("nothing was evicted: %+v", s)
	}
}

func TestInvalidateDuringLoadReleasesBoth(t *testing.T) {
	t.Parallel()
	c := newCache(t, cache.Options[*value]{})
	var made []*value
	v, err := c.Get(t.Context(), "a", func(ctx context.Context, key string) (*value, error) {
		v, err := load(ctx, key)
		made = append(made, v)
		if len(made) == 1 {
			done := make(chan struct{})
			go func() { c.Invalidate(key); close(done) }()
			<-done
		}
		return v, err
	})
	if err != nil {
		t.Fatal(err)
	}
	c.Invalidate("a")
	if len(made) != 2 || v != made[1] {
		t.Fatalf("made %d values, got the one at %v", len(made), v)
	}
	for i, m := range made {
		if m.released.Load() != 1 {
			t.Errorf("value %d released %d times", i, m.released.Load())
		}
	}
}

func TestCloseDuringLoadKeepsNothing(t *testing.T) {
	t.Parallel()
	c := newCache(t, cache.Options[*value]{})
	v, err := c.Get(t.Context(), "a", func(ctx context.Context, key string) (*value, error) {
		done := make(chan struct{})
		go func() { c.Close(); close(done) }()
		<-done
		return load(ctx, key)
	})
	if err != nil {
		t.Fatal(err)
	}
	if v.released.Load() != 1 {
		t.Errorf("released %d times", v.released.Load())
	}
	if _, err := c.Get(t.Context(), "b", load); !errors.Is(err, cache.ErrClosed) {
		t.Errorf("Get after Close: %v", err)
	}
}

func TestNegativeOptionsAreRefused(t *testing.T) {
	t.Parallel()
	for _, o := range []cache.Options[*value]{{TTL: -1}, {CleanupInterval: -1}, {MaxSize: -1}} {
		if _, err := cache.New[string](o); err == nil {
			t.Errorf("New(%+v) succeeded", o)
		}
	}
}
