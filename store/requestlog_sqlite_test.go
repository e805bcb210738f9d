package store

import (
	"context"
	"testing"
	"time"
)

// The connection that writes checks foreign keys again when logs are written, or were not.
func TestSQLiteChecksForeignKeysAfterLogs(t *testing.T) {
	t.Parallel()
	opened, err := Open(t.Context(), "sqlite://"+t.TempDir()+"/isekai.db", Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = opened.Close() })
	if err := opened.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	s := opened.(*sqlStore)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for _, tt := range []struct {
		name  string
		ctx   context.Context
		fails bool
	}{
		{"written", t.Context(), false},
		{"too late", gone, true},
	} {
		err := s.InsertLogs(tt.ctx, LogBatch{Writer: "a", Number: 1, Rows: []*RequestLog{{RouteID: 99, CreatedAt: time.Now()}}})
		if (err != nil) != tt.fails {
			t.Errorf("%s: %v", tt.name, err)
		}
		const violation = "INSERT INTO route_hits (route_id, last_hit) VALUES (99, '')"
		if _, err := s.writer.ExecContext(t.Context(), violation); err == nil {
			t.Errorf("%s: foreign keys are not checked", tt.name)
		}
	}
	// A transaction that fails half way.
	if _, err := s.writer.ExecContext(t.Context(), `CREATE TRIGGER refuse BEFORE INSERT ON request_logs WHEN NEW.path = '/refused'
		BEGIN SELECT RAISE(ABORT, 'refused'); END`); err != nil {
		t.Fatal(err)
	}
	rows := make([]*RequestLog, 70)
	for i := range rows {
		rows[i] = &RequestLog{Path: "/", CreatedAt: time.Now()}
	}
	rows[65].Path = "/refused"
	if err := s.InsertLogs(t.Context(), LogBatch{Writer: "a", Number: 2, Rows: rows}); err == nil {
		t.Error("a row that was refused is no error")
	}
	if got, err := s.Logs(t.Context(), LogFilter{}, nil, 100); err != nil || len(got) != 1 {
		t.Errorf("%d rows remain, want 1 (%v)", len(got), err)
	}
	if _, err := s.writer.ExecContext(t.Context(), "INSERT INTO route_hits (route_id, last_hit) VALUES (99, '')"); err == nil {
		t.Error("foreign keys are not checked after a failure")
	}
}
