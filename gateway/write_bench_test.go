package gateway_test

import (
	"fmt"
	"sync/atomic"
	"testing"

	"go.uber.org/zap"

	"github.com/isekai-gateway/isekai/gateway"
	"github.com/isekai-gateway/isekai/internal/pgtest"
	"github.com/isekai-gateway/isekai/store"
)

// BenchmarkCreate has eight writers for each processor, each of which waits until its
// route is served.
func BenchmarkCreate(b *testing.B) {
	g, err := gateway.Open(gateway.Config{DSN: pgtest.New(b), Log: zap.NewNop})
	if err != nil {
		b.Fatal(err)
	}
	defer g.Close()
	g.Start(b.Context())
	var n atomic.Int64
	b.ReportAllocs()
	b.SetParallelism(8)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			row := store.NewRoute(fmt.Sprint("/", n.Add(1)), "http://10.0.0.1")
			if _, _, err := g.Create(b.Context(), row, store.Author{}); err != nil {
				b.Error(err)
			}
		}
	})
}
