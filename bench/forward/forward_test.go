package main

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/isekai-gateway/isekai/bench/internal/load"
	"github.com/isekai-gateway/isekai/bench/internal/peers"
	"github.com/isekai-gateway/isekai/bench/internal/procs"
)

func TestMain(m *testing.M) { peers.RunTests(m) }

// The whole benchmark, in short rounds: every peer that is here starts, gives right
// answers, and gets its row.
func TestWholeBenchmark(t *testing.T) {
	if testing.Short() {
		t.Skip("builds Caddy")
	}
	if _, err := procs.Processors(); err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	results := filepath.Join(dir, "RESULTS.md")
	if err := os.WriteFile(results, []byte("# Results\n\n<!-- limiter: begin -->\nkept\n<!-- limiter: end -->\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"-rounds", "1", "-time", "100ms", "-warm", "20ms", "-scenarios", "128 B", "-results", results}
	if program := os.Getenv("ISEKAI_E2E_BINARY"); program != "" {
		args = append(args, "-program", program)
	}
	if err := run(context.Background(), args); err != nil {
		t.Fatal(err)
	}
	text := read(t, results)
	wants := []string{"<!-- limiter: begin -->\nkept\n", "\n| " + nameDirect + " ", "\n| " + nameCaddy + " ", "\n| " + nameCaddyLog + " ", "\n| " + nameFull + " ", "\n| " + nameLogged + " "}
	for _, name := range []string{"nginx", "HAProxy", "Traefik"} {
		if procs.Find(strings.ToLower(name)) != "" {
			wants = append(wants, "\n| "+name+" ")
		} else {
			wants = append(wants, "* Absent: "+name+": not installed\n")
		}
	}
	for _, want := range wants {
		if !strings.Contains(text, want) {
			t.Errorf("the results have no %q", want)
		}
	}
	if strings.Contains(text, "FAILED") || t.Failed() {
		t.Errorf("results:\n%s", text)
	}
	checkXML(t, read(t, filepath.Join(dir, plotName)))
}

// Who takes part in which scenario.
func TestScenarios(t *testing.T) {
	t.Parallel()
	all := allPeers()
	names := func(sc scenario) []string {
		var names []string
		for _, p := range sc.with(all) {
			names = append(names, p.name)
		}
		return names
	}
	short := []string{nameDirect, "nginx", "HAProxy", "Traefik", nameCaddy, nameCaddyTuned, nameCaddyGC, nameCaddyLog, nameFull, nameFast, nameLogged, namePostgres}
	plain := []string{nameDirect, "nginx", "HAProxy", "Traefik", nameCaddy, nameFull, nameFast, nameLogged}
	want := map[string][]string{
		scenarioShort: short, "10 KB": plain, "1 MB": plain, "POST": plain, "TLS": plain[1:], "HTTP/2": plain[1:],
		scenarioRoutes:         {nameCaddy, nameFull, nameFast, nameThousand, nameMany},
		"routes, each in turn": {nameCaddy, nameFull, nameFast, nameThousand, nameMany},
	}
	got := make(map[string][]string)
	for _, sc := range scenarios() {
		got[sc.name] = names(sc)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestSelected(t *testing.T) {
	t.Parallel()
	var names []string
	for _, p := range selected(allPeers(), "NGINX, that with") {
		names = append(names, p.name)
	}
	if diff := cmp.Diff([]string{"nginx", nameCaddy, namePostgres}, names); diff != "" {
		t.Error(diff)
	}
	if got, all := len(selected(allPeers(), "")), len(allPeers()); got != all {
		t.Errorf("%d of %d without a filter", got, all)
	}
}

func TestFlags(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"-rounds", "0"}, {"-time", "0s"}, {"-warm", "-1s"}, {"-scenarios", "none such"}, {"-unknown"}} {
		if err := run(context.Background(), args); err == nil {
			t.Errorf("%v was accepted", args)
		}
	}
}

// sample is measurements of two rounds, the second on a machine half as fast.
func sample() *measurements {
	m := &measurements{of: make(map[string]map[string]*figures), load: "0.50", absent: []string{"Traefik: not installed"}}
	put := func(scenario, peer string, micros float64) {
		if m.of[scenario] == nil {
			m.of[scenario] = make(map[string]*figures)
		}
		f := &figures{}
		for _, slow := range []int{1, 2} {
			f.add(&load.Outcome{
				Requests: 1000, Elapsed: time.Second, P50: time.Millisecond, P99: 3 * time.Millisecond, RSS: 60e6,
				CPU: time.Duration(micros*float64(slow)*1000) * time.Microsecond, Busy: time.Second / 2, LoadCPU: time.Second / 4,
			})
		}
		m.of[scenario][peer] = f
	}
	put(scenarioShort, nameCaddy, 80)
	put(scenarioShort, nameCaddyLog, 100)
	put(scenarioShort, nameFull, 72)
	put(scenarioShort, nameLogged, 90)
	put(scenarioRoutes, nameCaddy, 80)
	put(scenarioRoutes, nameFull, 72)
	put(scenarioRoutes, nameMany, 90)
	return m
}

func TestRender(t *testing.T) {
	t.Parallel()
	todo := slices.DeleteFunc(scenarios(), func(sc scenario) bool { return sc.name != scenarioShort && sc.name != scenarioRoutes })
	m := sample()
	m.failed = []string{"nginx, 128 B: two\nlines"}
	s := settings{rounds: 2, time: time.Second, warm: time.Millisecond}
	text := render(s, allPeers(), todo, m, runInfo{"go run ./forward", time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)})
	flat := strings.Join(strings.Fields(text), " ")
	for _, want := range []string{
		"* Load average before it: 0.50", "* Date: 2026-11-24", "* Absent: Traefik: not installed", "* FAILED: nginx, 128 B: two lines",
		"### GET, 128-byte answers", "### GET of always the same route, out of so many",
		"| Caddy reverse_proxy | 120.0 (100.0-140.0) | 1.00 (1.00-1.00) x | 1000 (1000-1000) | 1.00 | 3.00 | 60 | 50 % | 25 % |",
		// Round by round the ratio is the same, whatever the machine does.
		"| Isekai, full lane | 108.0 (90.0-126.0) | 0.90 (0.90-0.90) x |",
		"| Isekai, limit + log + metrics | 1.25 (1.25-1.25) x | 0.90 (0.90-0.90) x | 1.12 (1.12-1.12) x |",
		"| Full lane against Caddy's reverse_proxy | 0.90 (0.90-0.90) x | 1.00 x | 0.90 x | meets the stretch goal |",
		"| 100,000 routes against 1 route, same requests | 1.25 (1.25-1.25) x | 1.05 x | 1.02 x | MISSES the bar |",
	} {
		if !strings.Contains(flat, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if strings.Contains(text, "The load was busier") {
		t.Error("the load is said to be the bottleneck")
	}
	m.get(scenarioShort, nameFull).load = []float64{0.9, 0.9}
	if text := render(s, allPeers(), todo, m, runInfo{}); !strings.Contains(text, "\nThe load was busier than the proxy, and bounds requests/s of: "+nameFull+".\n") {
		t.Errorf("the load is not said to be the bottleneck in\n%s", text)
	}
	if strings.Contains(text, "| nginx") {
		t.Error("there is a row of what was not measured")
	}
}

// With a fast lane, what Isekai costs is what that costs.
func TestRenderOfTheFastLane(t *testing.T) {
	t.Parallel()
	m := sample()
	for _, scenario := range []string{scenarioShort, scenarioRoutes} {
		m.of[scenario][nameFast] = &figures{micros: []float64{40, 80}}
	}
	flat := strings.Join(strings.Fields(render(settings{rounds: 2}, allPeers(), scenarios(), m, runInfo{"x", time.Now()})), " ")
	for _, want := range []string{
		"| CPU per request against Caddy's reverse_proxy, by the fast lane | 0.50 (0.50-0.50) x | 0.55 x | 0.40 x | meets the bar",
		"| Isekai, limit + log + metrics | 2.25 (2.25-2.25) x |",
		"| 100,000 routes against 1 route, same requests | 2.25 (2.25-2.25) x |",
	} {
		if !strings.Contains(flat, want) {
			t.Errorf("no %q in\n%s", want, flat)
		}
	}
}

// Without Caddy, or any scenario that a bar is about, there are no ratios and verdicts.
func TestRenderOfLittle(t *testing.T) {
	t.Parallel()
	m := sample()
	delete(m.of[scenarioShort], nameCaddy)
	delete(m.of, scenarioRoutes)
	text := render(settings{rounds: 2}, allPeers(), scenarios(), m, runInfo{"x", time.Now()})
	if strings.Contains(text, "Against the bars") || strings.Contains(text, "NaN") {
		t.Error(text)
	}
}

func TestPanels(t *testing.T) {
	t.Parallel()
	drawn := panels(allPeers(), scenarios(), sample())
	var got [][]string
	for _, p := range drawn {
		var bars []string
		for _, b := range p.Bars {
			bars = append(bars, fmt.Sprintf("%s %.*f", b.Label, b.Digits, b.Value))
		}
		got = append(got, bars)
	}
	want := [][]string{
		{"Caddy reverse_proxy 120.0", "Caddy, access log 150.0", "Isekai, full lane 108.0", "Isekai, limit + log + metrics 135.0"},
		{"128 B: full lane 0.90", "128 B: limit + log + metrics 1.12", "routes: full lane 0.90", "routes: 100,000 routes 1.12"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if got := panels(allPeers(), scenarios(), &measurements{}); len(got) != 0 {
		t.Errorf("of nothing: %v", got)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func checkXML(t *testing.T, text string) {
	t.Helper()
	for d := xml.NewDecoder(strings.NewReader(text)); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Fatalf("the plot is no XML: %v", err)
		}
	}
}
