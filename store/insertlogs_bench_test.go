package store_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/isekai-gateway/isekai/store"
)

// BenchmarkInsertLogs writes batches to SQLite; the operation is a row.
func BenchmarkInsertLogs(b *testing.B) {
	s, err := store.Open(b.Context(), "sqlite://"+b.TempDir()+"/isekai.db", store.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	if err := s.Migrate(b.Context()); err != nil {
		b.Fatal(err)
	}
	route, err := s.Create(b.Context(), store.NewRoute("/a", "http://x"), store.Author{})
	if err != nil {
		b.Fatal(err)
	}
	rows := make([]*store.RequestLog, 1000)
	b.ReportAllocs()
	for n := 0; n < b.N; n += len(rows) {
		for i := range rows {
			rows[i] = &store.RequestLog{
				RouteID: route.ID, Method: "GET", Host: "api.example.com", Path: fmt.Sprint("/a/", n+i), Status: 200,
				ClientIP: "192.0.2.1", UserAgent: "curl/8", Upstream: "10.0.0.1:80", RequestID: fmt.Sprintf("%036d", n+i), CreatedAt: time.Now(),
			}
		}
		if err := s.InsertLogs(b.Context(), rows); err != nil {
			b.Fatal(err)
		}
	}
}
