package store_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/isekai-gateway/isekai/internal/pgtest"
	"github.com/isekai-gateway/isekai/store"
)

// BenchmarkInsertLogs writes batches; the operation is a row.
func BenchmarkInsertLogs(b *testing.B) {
	b.Run("SQLite", func(b *testing.B) { benchmarkInsertLogs(b, "sqlite://"+b.TempDir()+"/isekai.db") })
	b.Run("Postgres", func(b *testing.B) { benchmarkInsertLogs(b, pgtest.New(b)) })
}

func benchmarkInsertLogs(b *testing.B, dsn string) {
	s, err := store.Open(b.Context(), dsn, store.Options{})
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
	writer, number := uuid.NewString(), int64(0)
	b.ReportAllocs()
	b.ResetTimer()
	for n := 0; n < b.N; n += len(rows) {
		for i := range rows {
			rows[i] = &store.RequestLog{
				RouteID: route.ID, Method: "GET", Host: "api.example.com", Path: fmt.Sprint("/a/", n+i), Status: 200,
				ClientIP: "192.0.2.1", UserAgent: "curl/8", Upstream: "10.0.0.1:80", RequestID: fmt.Sprintf("%036d", n+i), CreatedAt: time.Now(),
			}
		}
		number++
		if err := s.InsertLogs(b.Context(), store.LogBatch{Writer: writer, Number: number, Rows: rows}); err != nil {
			b.Fatal(err)
		}
	}
}
