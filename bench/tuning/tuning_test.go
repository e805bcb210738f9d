package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/isekai-gateway/isekai/bench/internal/peers"
	"github.com/isekai-gateway/isekai/bench/internal/procs"
)

func TestMain(m *testing.M) { peers.RunTests(m) }

// All groups but the one that builds for minutes, in short rounds: every variant starts
// with its setting, and has its row in the document.
func TestWholeBenchmark(t *testing.T) {
	if testing.Short() {
		t.Skip("builds Caddy")
	}
	if _, err := procs.Processors(); err != nil {
		t.Skip(err)
	}
	results := filepath.Join(t.TempDir(), "tuning.md")
	if err := os.WriteFile(results, []byte("# Tuning\n\nKept.\n\n<!-- tuning-cache: begin -->\nold\n<!-- tuning-cache: end -->\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"-rounds", "1", "-time", "100ms", "-warm", "20ms", "-share", "0.1", "-routes", "100", "-pgo=false", "-results", results}
	if program := os.Getenv("ISEKAI_E2E_BINARY"); program != "" {
		args = append(args, "-program", program)
	}
	if err := run(context.Background(), args); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(results)
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range groups(settings{routes: 100}) {
		_, section, _ := strings.Cut(string(text), "<!-- tuning-"+g.name+": begin -->")
		section, _, _ = strings.Cut(section, "<!-- tuning-"+g.name+": end -->")
		for _, v := range g.variants {
			if !strings.Contains(section, "\n| `"+v.name+"` ") {
				t.Errorf("the section on %s has no row of %s", g.name, v.name)
			}
		}
	}
	if !strings.Contains(string(text), "# Tuning\n\nKept.\n") || strings.Contains(string(text), "old") || strings.Contains(string(text), "FAILED") || t.Failed() {
		t.Errorf("results:\n%s", text)
	}
}

func TestFlags(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{"-rounds", "0"}, {"-time", "0s"}, {"-warm", "-1s"}, {"-routes", "0"}, {"-share", "1"}, {"-share", "0"}, {"-only", "none such"}, {"-unknown"},
	} {
		if err := run(context.Background(), args); err == nil {
			t.Errorf("%v was accepted", args)
		}
	}
}

// docs/tuning.md has the sections of all groups, and the program no others.
func TestDocument(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/tuning.md")
	if err != nil {
		t.Fatal(err)
	}
	var want, got []string
	for _, g := range groups(settings{pgo: true}) {
		want = append(want, g.name)
	}
	for line := range strings.Lines(string(text)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "<!-- tuning-"); ok && strings.HasSuffix(name, ": begin -->") {
			got = append(got, strings.TrimSuffix(name, ": begin -->"))
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestGroups(t *testing.T) {
	t.Parallel()
	for _, g := range groups(settings{routes: 7, pgo: true}) {
		names := make(map[string]bool)
		for _, v := range g.variants {
			if names[v.name] {
				t.Errorf("%s has two of %s", g.name, v.name)
			}
			names[v.name] = true
		}
		if g.each && asked(g, g.variants[0]) != 7 || !g.each && asked(g, g.variants[0]) != 1 {
			t.Errorf("%s asks for %d routes", g.name, asked(g, g.variants[0]))
		}
	}
	for _, g := range groups(settings{postgres: "postgres://x"}) {
		if g.name == "batch" && (!g.variants[0].Postgres || !strings.Contains(g.about, "PostgreSQL")) {
			t.Errorf("%+v is without the database", g)
		}
	}
	var names []string
	for _, g := range selected(groups(settings{}), "Cache, max") {
		names = append(names, g.name)
	}
	if diff := cmp.Diff([]string{"cache", "max-conns"}, names); diff != "" {
		t.Error(diff)
	}
}

// What fails is left out from then on.
func TestRounds(t *testing.T) {
	t.Parallel()
	m := &measurements{of: make(map[string]*figures)}
	var order []string
	left, err := m.rounds(t.Context(), settings{rounds: 2}, []variant{{name: "a"}, {name: "b"}}, func(v variant) error {
		order = append(order, v.name)
		if v.name == "a" {
			return errors.New("gone")
		}
		return nil
	})
	if err != nil || len(left) != 1 || left[0].name != "b" {
		t.Fatalf("%v, %v", left, err)
	}
	if diff := cmp.Diff([]string{"a", "b", "b"}, order); diff != "" {
		t.Error(diff)
	}
}

func TestRender(t *testing.T) {
	t.Parallel()
	g := group{name: "x", about: "one route", variants: []variant{{name: "A=1"}, {name: "A=2"}, {name: "A=3"}}}
	m := &measurements{of: map[string]*figures{
		"A=1": {micros: []float64{100, 200}, rate: []float64{1000, 2000}, rss: []float64{60, 60}, p99: []float64{1, 1}, p999: []float64{2, 2}},
		"A=2": {micros: []float64{50, 100}, rate: []float64{2000, 4000}, rss: []float64{90, 90}, p99: []float64{3, 3}, p999: []float64{4, 4}},
	}, rate: 1050, failed: []string{"A=3: two\nlines"}}
	text := render(settings{rounds: 2, time: time.Second, share: 0.7}, g, m, runInfo{"go run ./tuning", time.Unix(0, 0), "0.50"})
	flat := strings.Join(strings.Fields(text), " ")
	for _, want := range []string{
		"| | CPU us/request | ratio | requests/s | RSS MB | p99 ms at 1050/s | p99.9 ms |",
		"| `A=1` | 150.0 (125.0-175.0) | 1.00 (1.00-1.00) x |",
		"| `A=2` | 75.0 (62.5-87.5) | 0.50 (0.50-0.50) x | 3000 (2500-3500) | 90 (90-90) | 3.00 (3.00-3.00) | 4.00 (4.00-4.00) |",
		"One route; 2 rounds of 1s", "at 70 % of what the first", "load average before it 0.50; 1970-01-01; `go run ./tuning`.",
		"FAILED: A=3: two lines",
	} {
		if !strings.Contains(flat, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}
