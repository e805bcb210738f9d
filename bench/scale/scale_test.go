package main

import (
	"context"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/isekai-gateway/isekai/routing"
)

// TestMeasureAndRender goes through all of a run, in small, with a binary that it builds.
func TestMeasureAndRender(t *testing.T) {
	if testing.Short() {
		t.Skip("builds a binary")
	}
	s := settings{routes: 200, hosts: 20, million: 300, matches: 200, rounds: 2, applies: 3, requests: 64, logRows: 100}
	m, err := measure(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	for i, load := range m.loads {
		if len(load) != s.rounds || load[0].p50 <= 0 || load[0].p99 < load[0].p50 || load[0].rate <= 0 {
			t.Errorf("load %d: %+v", i, load)
		}
	}
	if d := m.database; len(d.served) != s.applies || d.insert <= 0 || d.heap <= 0 || len(d.load) != s.rounds {
		t.Errorf("database: %+v", d)
	}
	if m.sizes.logRow <= 100 || m.sizes.document <= m.sizes.series {
		t.Errorf("sizes: %+v", m.sizes)
	}
	text := render(s, m, runInfo{command: "x", began: time.Now(), load: "0", loadAfter: "1"})
	for _, want := range []string{"200 routes over 20 hosts", "match, uniform hits", "build the table of 300", "a reload of Caddy", "Cold start", "the same requests"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in %s", want, text)
		}
	}
}

// TestRequestsFindTheirRoutes holds the generator to what it promises: hits find a route
// of their number, misses none.
func TestRequestsFindTheirRoutes(t *testing.T) {
	t.Parallel()
	const n, hosts = 1000, 50
	table := routing.NewTable(makeRows(n, hosts), 1)
	if table.Served() != n {
		t.Fatalf("of %d routes %d are served", n, table.Served())
	}
	for i := range n {
		q := hit(i, n, hosts)
		if r := table.Match(&q); r == nil || r.ID != int64(i+1) {
			t.Fatalf("request %d finds %v", i, r)
		}
	}
	random := rand.New(rand.NewPCG(1, 1))
	for _, kind := range traffics {
		found := make(map[int64]bool)
		for range n {
			q := kind.make(random, n, hosts)
			r := table.Match(&q)
			if (r == nil) != kind.miss {
				t.Errorf("%s: %s%s finds %v", kind.name, q.Host, q.Path, r)
			}
			if r != nil {
				found[r.ID] = true
			}
		}
		if !kind.miss && len(found) < 100 {
			t.Errorf("%s: only %d routes are asked for", kind.name, len(found))
		}
	}
}

func TestMeasureStops(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := measureTable(ctx, settings{hosts: 1, rounds: 1, matches: 1, applies: 1}, 10); err == nil {
		t.Error("a table was measured after the end")
	}
}
