package store_test

import (
	"strings"
	"testing"

	"github.com/isekai-gateway/isekai/store"
)

// A record that was trimmed is written as one that was not.
func TestTrim(t *testing.T) {
	t.Parallel()
	whole := func() *store.RequestLog {
		return &store.RequestLog{
			Method: strings.Repeat("M", 5000), Path: "/" + strings.Repeat("ä", 5000), Query: strings.Repeat("\xff", 5000),
			UserAgent: strings.Repeat("u", 5000), Host: "short", Headers: map[string]string{"X-A": strings.Repeat("ü", 5000), "X-B": "b"},
		}
	}
	s := open(t, newSQLite(t), store.Options{})
	trimmed := whole()
	trimmed.Trim()
	size := len(trimmed.Method) + len(trimmed.Path) + len(trimmed.Query) + len(trimmed.UserAgent) + len(trimmed.Headers["X-A"])
	if size > 6000 || trimmed.Host != "short" || trimmed.Headers["X-B"] != "b" {
		t.Errorf("%d bytes of %+v are left", size, trimmed)
	}
	if err := s.InsertLogs(t.Context(), store.LogBatch{Rows: []*store.RequestLog{whole(), trimmed}}); err != nil {
		t.Fatal(err)
	}
	rows, err := s.Logs(t.Context(), store.LogFilter{}, nil, 10)
	if err != nil || len(rows) != 2 {
		t.Fatalf("%d rows, %v", len(rows), err)
	}
	a, b := rows[0], rows[1]
	if a.Method != b.Method || a.Path != b.Path || a.Query != b.Query || a.UserAgent != b.UserAgent || a.Headers["X-A"] != b.Headers["X-A"] {
		t.Errorf("the rows differ: %+v, %+v", a, b)
	}
}
