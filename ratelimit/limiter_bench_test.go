package ratelimit_test

import (
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/isekai-gateway/isekai/ratelimit"
)

// BenchmarkAllow is the decision of "limiter decision in memory": 1M keys,
// limit 100 a minute, all processors.
func BenchmarkAllow(b *testing.B) {
	const count = 1_000_000
	keys := make([]string, count)
	for i := range keys {
		keys[i] = "10." + strconv.Itoa(i>>16) + "." + strconv.Itoa(i>>8&255) + "." + strconv.Itoa(i&255)
	}
	rule := ratelimit.Rule{Name: "route", Limit: 100, Window: time.Minute}
	for _, mode := range []struct {
		name string
		next func(*rand.Rand) func() int
	}{
		{"uniform", func(r *rand.Rand) func() int { return func() int { return r.IntN(count) } }},
		{"zipf", func(r *rand.Rand) func() int {
			z := rand.NewZipf(r, 1.1, 1, count-1)
			return func() int { return int(z.Uint64()) }
		}},
		{"hot", func(*rand.Rand) func() int { return func() int { return 7 } }},
	} {
		b.Run(mode.name, func(b *testing.B) {
			limiter := ratelimit.New(ratelimit.Config{MaxKeys: 1_100_000})
			for _, key := range keys {
				limiter.Allow(rule, "route:1", key, 1)
			}
			// Side by side, so that each is at hand when it comes, as that of a request is.
			next := mode.next(rand.New(rand.NewPCG(1, 2)))
			var text strings.Builder
			for range 1 << 20 {
				text.WriteString(keys[next()] + " ")
			}
			order := strings.Fields(text.String())
			b.ReportAllocs()
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for i := rand.IntN(len(order)); pb.Next(); i++ {
					limiter.Allow(rule, "route:1", order[i%len(order)], 1)
				}
			})
		})
	}
}

// BenchmarkAllowRandomKeys is a flood: every decision adds a key to a full limiter.
func BenchmarkAllowRandomKeys(b *testing.B) {
	limiter := ratelimit.New(ratelimit.Config{MaxKeys: 100_000})
	rule := ratelimit.Rule{Name: "route", Limit: 100, Window: time.Minute}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		r := rand.New(rand.NewPCG(rand.Uint64(), 2))
		var key [16]byte
		for pb.Next() {
			limiter.Allow(rule, "", string(strconv.AppendUint(key[:0], r.Uint64(), 16)), 1)
		}
	})
}
