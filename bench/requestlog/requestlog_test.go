package main

import (
	"strings"
	"testing"

	"github.com/isekai-gateway/isekai/bench/internal/postgres"
)

// A small run is whole: everything is written, found and reported.
func TestRun(t *testing.T) {
	t.Parallel()
	server, err := postgres.Start()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	s := settings{dsn: server.DSN, rows: 20_000, batch: 500, writers: 2, asks: 2}
	m, err := measure(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	if m.written != s.rows || m.took <= 0 {
		t.Errorf("%d rows in %v", m.written, m.took)
	}
	for _, q := range m.questions {
		wantRows := !strings.Contains(q.name, "nothing")
		if (q.rows > 0) != wantRows || len(q.took) != s.asks {
			t.Errorf("%s: %d rows, asked %d times", q.name, q.rows, len(q.took))
		}
	}
	text := render(s, m, runInfo{command: "go run ./requestlog"})
	for _, want := range []string{"20000 rows", "go run ./requestlog", "one request of the day, by its id", "the bar of 60000"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in %s", want, text)
		}
	}
}
