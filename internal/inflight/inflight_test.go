package inflight_test

import (
	"sync"
	"sync/atomic"
	"testing"

	"github.com/isekai-gateway/isekai/internal/inflight"
)

func TestCounts(t *testing.T) {
	t.Parallel()
	var c inflight.Counts
	steps := []struct {
		acquire bool // else release
		id      int64
		most    int
		want    bool
		routes  int
	}{
		{true, 1, 0, false, 0},
		{true, 1, 2, true, 1},
		{true, 1, 2, true, 1},
		{true, 1, 2, false, 1},
		{true, 1, 3, true, 1}, // the bound was raised
		{true, 1, 1, false, 1},
		{true, 33, 1, true, 2}, // of the same shard
		{false, 1, 0, false, 2},
		{true, 1, 2, false, 2},
		{false, 1, 0, false, 2},
		{true, 1, 2, true, 2},
		{false, 33, 0, false, 1},
		{false, 1, 0, false, 1},
		{false, 1, 0, false, 0},
		{true, 1, 1, true, 1},
	}
	for i, step := range steps {
		if !step.acquire {
			c.Release(step.id)
		} else if got := c.Acquire(step.id, step.most); got != step.want {
			t.Fatalf("step %d: Acquire(%d, %d) is %v", i, step.id, step.most, got)
		}
		if got := c.Routes(); got != step.routes {
			t.Fatalf("step %d: %d routes are counted, want %d", i, got, step.routes)
		}
	}
}

func TestCountsUnderContention(t *testing.T) {
	t.Parallel()
	const most, callers, rounds = 3, 16, 2000
	var (
		c        inflight.Counts
		inside   atomic.Int64
		admitted atomic.Int64
		wg       sync.WaitGroup
	)
	for range callers {
		wg.Go(func() {
			for range rounds {
				if !c.Acquire(7, most) {
					continue
				}
				admitted.Add(1)
				if n := inside.Add(1); n > most {
					t.Errorf("%d are inside", n)
				}
				inside.Add(-1)
				c.Release(7)
			}
		})
	}
	wg.Wait()
	if admitted.Load() == 0 || c.Routes() != 0 {
		t.Errorf("%d were admitted, %d routes are left", admitted.Load(), c.Routes())
	}
}

func BenchmarkAcquire(b *testing.B) {
	var c inflight.Counts
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if c.Acquire(1, 1_000_000) {
				c.Release(1)
			}
		}
	})
}
