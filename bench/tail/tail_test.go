package main

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/isekai-gateway/isekai/bench/internal/load"
	"github.com/isekai-gateway/isekai/bench/internal/peers"
	"github.com/isekai-gateway/isekai/bench/internal/procs"
)

func TestMain(m *testing.M) { peers.RunTests(m) }

// The whole benchmark, at a low rate: every proxy that is here has its row, and every
// event takes place while the load runs.
func TestWholeBenchmark(t *testing.T) {
	if testing.Short() {
		t.Skip("builds Caddy")
	}
	if _, err := procs.Processors(); err != nil {
		t.Skip(err)
	}
	results := filepath.Join(t.TempDir(), "RESULTS.md")
	args := []string{"-short", "-rate", "200", "-routes", "1000", "-connections", "32", "-results", results}
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
	for _, c := range contestants(1000) {
		want := "\n| " + c.name + " "
		if why := c.absent(nil); why != "" {
			want = "* Absent: " + c.name + ": " + why + "\n"
		}
		if !strings.Contains(string(text), want) {
			t.Errorf("the results have no %q", want)
		}
	}
	if strings.Contains(string(text), "FAILED") || t.Failed() {
		t.Errorf("results:\n%s", text)
	}
}

func TestFlags(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{"-rounds", "0"}, {"-time", "0s"}, {"-warm", "-1s"}, {"-connections", "0"}, {"-routes", "0"},
		{"-share", "1"}, {"-share", "0"}, {"-rate", "-1"}, {"-only", "none such"}, {"-unknown"},
	} {
		if err := run(context.Background(), args); err == nil {
			t.Errorf("%v was accepted", args)
		}
	}
}

func TestSelected(t *testing.T) {
	t.Parallel()
	var names []string
	for _, c := range selected(contestants(1), "CADDY, request_log") {
		names = append(names, c.name)
	}
	if diff := cmp.Diff([]string{nameCaddy, nameUnlogged}, names); diff != "" {
		t.Error(diff)
	}
}

func TestChooseRate(t *testing.T) {
	t.Parallel()
	of := func(rates map[string]float64) map[string]*figures {
		all := make(map[string]*figures)
		for name, rate := range rates {
			all[name] = &figures{saturation: []float64{rate, rate + 1, rate - 1}}
		}
		return all
	}
	tests := []struct {
		name    string
		of      map[string]*figures
		fixed   float64
		rate    float64
		slowest string
		fails   bool
	}{
		{name: "of the slowest", of: of(map[string]float64{"a": 1000, "b": 500, "c": 700}), rate: 350, slowest: "b"},
		{name: "of two", of: of(map[string]float64{"b": 500, "a": 500}), rate: 350, slowest: "a"},
		{name: "as it was named", of: of(map[string]float64{"b": 500}), fixed: 90, rate: 90, slowest: "b"},
		{name: "named, of none", fixed: 90, rate: 90},
		{name: "of none", fails: true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			m := &measurements{of: test.of}
			if err := m.chooseRate(settings{share: 0.7, rate: test.fixed}); (err != nil) != test.fails {
				t.Fatalf("error %v", err)
			}
			if m.rate != test.rate || m.slowest != test.slowest {
				t.Errorf("%v of %q", m.rate, m.slowest)
			}
		})
	}
}

// What fails is left out from then on.
func TestRounds(t *testing.T) {
	t.Parallel()
	m := &measurements{of: make(map[string]*figures)}
	all := []contestant{{name: "a"}, {name: "b"}, {name: "c"}}
	var order []string
	err := m.rounds(t.Context(), settings{rounds: 3}, &all, func(contestant) bool { return true }, func(c contestant, round int) error {
		order = append(order, fmt.Sprint(c.name, round))
		m.figures(c.name)
		if c.name == "b" && round == 1 {
			return fmt.Errorf("gone")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"a0", "b0", "c0", "b1", "c1", "a1", "a2", "c2"}, order); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"b: gone"}, m.failed); diff != "" || m.of["b"] != nil || m.of["a"] == nil || len(all) != 2 {
		t.Errorf("%s, left: %v", diff, all)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := m.rounds(ctx, settings{rounds: 1}, &all, func(contestant) bool { return true }, func(contestant, int) error { return nil }); err == nil {
		t.Error("it went on although it was interrupted")
	}
}

func TestCollections(t *testing.T) {
	t.Parallel()
	text := "# TYPE go_gc_duration_seconds summary\ngo_gc_duration_seconds{quantile=\"1\"} 0.1\ngo_gc_duration_seconds_count 42\n"
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/metrics" {
			fmt.Fprint(w, text)
		}
	}))
	defer server.Close()
	if n, err := collections(t.Context(), &peers.Running{Admin: server.URL}); err != nil || n != 42 {
		t.Errorf("%v, %v", n, err)
	}
	if n, err := collections(t.Context(), &peers.Running{}); err != nil || !math.IsNaN(n) {
		t.Errorf("without an endpoint: %v, %v", n, err)
	}
	if _, err := collections(t.Context(), &peers.Running{Admin: server.URL + "/none"}); err == nil {
		t.Error("other text was taken for metrics")
	}
}

// Requests count as an event's while it goes on and shortly after, and its length only
// if it came to its end.
func TestNote(t *testing.T) {
	t.Parallel()
	o := &load.OpenOutcome{Began: time.Unix(100, 0), Rate: 1000, Took: make([]time.Duration, 1000)}
	for i := range o.Took {
		o.Took[i] = time.Duration(i)
	}
	at := func(ms int) time.Time { return o.Began.Add(time.Duration(ms) * time.Millisecond) }
	var f figures
	f.note(o, []window{{at(100), at(110), false}, {at(990), at(1500), true}})
	if len(f.during) != 70 || f.during[0] != 100 || f.during[59] != 159 || f.during[60] != 990 {
		t.Errorf("%d requests: %v", len(f.during), f.during)
	}
	if diff := cmp.Diff([]float64{10}, f.lasted); diff != "" || f.events != 2 {
		t.Errorf("%d events: %s", f.events, diff)
	}
}

func TestRender(t *testing.T) {
	t.Parallel()
	all := contestants(1000)
	m := &measurements{
		of: make(map[string]*figures), rate: 700, slowest: nameCaddy, load: "0.50", command: "go run ./tail",
		began: time.Date(2026, 11, 25, 0, 0, 0, 0, time.UTC), absent: []string{"nginx: not installed"}, failed: []string{"HAProxy: two\nlines"},
	}
	took := make([]time.Duration, 1000)
	for i := range took {
		took[i] = time.Duration(i+1) * 10 * time.Microsecond
	}
	o := &load.OpenOutcome{Began: m.began, Rate: 700, Took: took, CPU: 50 * time.Millisecond, RSS: 60e6, Lag: 20 * time.Microsecond}
	for _, name := range []string{nameCaddy, nameObserved, all[8].name} {
		m.figures(name).add(o, 7)
	}
	m.of[nameCaddy].saturation = []float64{1000}
	m.of[nameObserved].waited = 3
	m.of[all[8].name].during, m.of[all[8].name].events, m.of[all[8].name].lasted = took[:500], 2, []float64{80}
	text := render(settings{rounds: 1, time: time.Second, share: 0.7, connections: 9}, all, m)
	flat := strings.Join(strings.Fields(text), " ")
	for _, want := range []string{
		"* That rate is 70 % of what Caddy reverse_proxy can do", "* Absent: nginx: not installed", "* FAILED: HAProxy: two lines",
		"| Caddy reverse_proxy | 5.00 (5.00-5.00) | 9.90 (9.90-9.90) | 9.99 (9.99-9.99) | 10.0 | 70 % | 1000 (1000-1000) | 50.0 | 60 | 7 |",
		"| Isekai, limit + log + metrics | 5.00 (5.00-5.00) | 9.90 (9.90-9.90) | 9.99 (9.99-9.99) | 10.0 | - | - | 50.0 | 60 | 7 |",
		"at most 0.02 ms after they were due. " + nameObserved + ": 3 of 1000 requests waited",
		"| nothing | 5.00 | 9.90 | 9.99 | 10.0 | 1000 | - | - | 7 |",
		"| 1,000 routes are imported at once | 2.50 | 4.95 | - | 5.0 | 500 | 2 | 80 (80-80) | 7 |",
	} {
		if !strings.Contains(flat, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	m.of[nameCaddy].lag = []float64{2}
	if text := render(settings{rate: 700}, all, m); !strings.Contains(text, "at most 2.00 ms after they were due. That is more than a tenth of the p99 of: "+nameCaddy+".") ||
		strings.Contains(text, "That rate is") || strings.Contains(text, "NaN") {
		t.Error(text)
	}
	if text := render(settings{}, all, &measurements{}); strings.Contains(text, "NaN") || strings.Contains(text, "While") {
		t.Error(text)
	}
}
