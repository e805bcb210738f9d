package main

import (
	"context"
	"math/rand/v2"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dgraph-io/ristretto/v2"
	"github.com/maypok86/otter/v2"

	"github.com/isekai-gateway/isekai/cache"
)

// entry is what caches hold; a compiled route is a pointer too.
type entry struct{ key int }

// cacheUnderTest is a library, which build starts for so many entries.
type cacheUnderTest struct {
	name  string
	build func(tb testing.TB, size int) (read func(key int) (e *entry, hit bool), end func())
}

func caches() []cacheUnderTest {
	return []cacheUnderTest{
		{"isekai, cache", buildCache},
		{"otter, with expiry", func(tb testing.TB, size int) (func(int) (*entry, bool), func()) {
			return buildOtter(tb, &otter.Options[int, *entry]{
				MaximumSize: size, ExpiryCalculator: otter.ExpiryAccessing[int, *entry](5 * time.Minute),
			})
		}},
		{"otter", func(tb testing.TB, size int) (func(int) (*entry, bool), func()) {
			return buildOtter(tb, &otter.Options[int, *entry]{MaximumSize: size})
		}},
		{"ristretto", buildRistretto},
	}
}

func buildCache(tb testing.TB, size int) (func(int) (*entry, bool), func()) {
	c, err := cache.New[int](cache.Options[*entry]{MaxSize: size})
	if err != nil {
		tb.Fatal(err)
	}
	ctx := context.Background()
	return func(key int) (*entry, bool) {
		if e, ok := c.Lookup(key); ok {
			return e, true
		}
		e, err := c.Get(ctx, key, func(_ context.Context, key int) (*entry, error) { return &entry{key}, nil })
		if err != nil {
			return nil, false // closed, which it is not
		}
		return e, false
	}, c.Close
}

func buildOtter(tb testing.TB, o *otter.Options[int, *entry]) (func(int) (*entry, bool), func()) {
	c, err := otter.New(o)
	if err != nil {
		tb.Fatal(err)
	}
	return func(key int) (*entry, bool) {
		if e, ok := c.GetIfPresent(key); ok {
			return e, true
		}
		e := &entry{key}
		c.Set(key, e)
		return e, false
	}, func() { c.StopAllGoroutines() }
}

func buildRistretto(tb testing.TB, size int) (func(int) (*entry, bool), func()) {
	c, err := ristretto.NewCache(&ristretto.Config[int, *entry]{
		NumCounters: int64(size) * 10, MaxCost: int64(size), BufferItems: 64, // as its documentation advises
		IgnoreInternalCost: true,
	})
	if err != nil {
		tb.Fatal(err)
	}
	return func(key int) (*entry, bool) {
		if e, ok := c.Get(key); ok {
			return e, true
		}
		e := &entry{key}
		c.Set(key, e, 1) // or not: it drops some
		return e, false
	}, c.Close
}

const (
	cacheKeys  = 100_000
	cacheReads = 1 << 18
)

// zipfKeys returns keys of which few are asked for often.
func zipfKeys() []int {
	random := rand.New(rand.NewPCG(1, 2))
	zipf := rand.NewZipf(random, 1.1, 1, cacheKeys-1)
	keys := make([]int, cacheReads)
	for i := range keys {
		keys[i] = int(zipf.Uint64())
	}
	return keys
}

// BenchmarkCache reads from all processors, and stores what it does not find.
func BenchmarkCache(b *testing.B) {
	keys := zipfKeys()
	for _, set := range []struct {
		name string
		size int
	}{{"room for all keys", 2 * cacheKeys}, {"room for a tenth of them", cacheKeys / 10}} {
		b.Run("set="+set.name, func(b *testing.B) {
			for _, lib := range caches() {
				// What filling it has left to be done later must not be paid by reads.
				read, end := lib.build(b, set.size)
				defer end()
				for range 2 {
					for _, key := range keys {
						read(key)
					}
				}
				runtime.GC()
				b.Run("lib="+lib.name+"/op=read", func(b *testing.B) {
					var hits, first atomic.Int64
					b.ReportAllocs()
					b.RunParallel(func(pb *testing.PB) {
						found := int64(0)
						for i := int(first.Add(cacheReads / 7)); pb.Next(); i++ {
							if _, hit := read(keys[i%cacheReads]); hit {
								found++
							}
						}
						hits.Add(found)
					})
					b.ReportMetric(100*float64(hits.Load())/float64(b.N), "hits,%")
				})
			}
		})
	}
}

// Each cache gives the entry of the key that was asked for, and keeps it.
func TestCaches(t *testing.T) {
	t.Parallel()
	for _, lib := range caches() {
		t.Run(lib.name, func(t *testing.T) {
			t.Parallel()
			read, end := lib.build(t, 1000)
			defer end()
			for _, want := range []int{7, 42} {
				if e, hit := read(want); hit || e == nil || e.key != want {
					t.Errorf("%d: %+v, hit: %t", want, e, hit)
				}
				// ristretto stores later.
				for deadline := time.Now().Add(10 * time.Second); ; {
					e, hit := read(want)
					if e.key != want {
						t.Fatalf("%d: %+v", want, e)
					}
					if hit {
						break
					}
					if time.Now().After(deadline) {
						t.Fatalf("%d was never kept", want)
					}
				}
			}
		})
	}
}
