package main

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/isekai-gateway/isekai/bench/internal/report"
)

const plotName = "forward.svg"

// bar is one of the project's own: what a ratio may be at most, and what it would be
// good to reach.
type bar struct {
	what         string
	ratios       []float64
	most, target float64
}

func bars(m *measurements) []bar {
	fastest, lane := m.fastest(scenarioShort), "the fast lane"
	if fastest == nameFull {
		lane = "the fastest lane there is (the full one)"
	}
	return []bar{
		{"CPU per request against Caddy's reverse_proxy, by " + lane, m.ratios(scenarioShort, fastest, nameCaddy), 0.55, 0.40},
		{"The same with rate limit, request log and metrics on", m.ratios(scenarioShort, nameLogged, nameCaddy), 0.70, 0.50},
		{"That with PostgreSQL as the store, where SQLite's work is not in the process", m.ratios(scenarioShort, namePostgres, nameCaddy), 0.70, 0.50},
		{"Full lane against Caddy's reverse_proxy", m.ratios(scenarioShort, nameFull, nameCaddy), 1.00, 0.90},
		{"100,000 routes against 1 route, same requests", m.ratios(scenarioRoutes, nameMany, m.fastest(scenarioRoutes)), 1.05, 1.02},
	}
}

// fastest returns the name of Isekai with one route and its defaults: that of the fast
// lane, if the program has one.
func (m *measurements) fastest(scenario string) string {
	if len(m.get(scenario, nameFast).micros) == 0 {
		return nameFull
	}
	return nameFast
}

// render returns the section of RESULTS.md. Every number in it is of this run.
func render(s settings, all []peer, todo []scenario, m *measurements, info runInfo) string {
	var b strings.Builder
	b.WriteString("## Forwarding\n\n")
	fmt.Fprintf(&b, "* Machine: %s\n", report.Machine())
	fmt.Fprintf(&b, "* Load average before it: %s (0 is a machine that does nothing else)\n", m.load)
	fmt.Fprintf(&b, "* Date: %s\n", info.began.UTC().Format(time.DateOnly))
	fmt.Fprintf(&b, "* Command: `%s`\n", info.command)
	fmt.Fprintf(&b, "* %d rounds of %v, after %v each; %d connections that are kept; medians, and in parentheses quartiles\n",
		s.rounds, s.time, s.warm, connections)
	for _, what := range m.absent {
		fmt.Fprintf(&b, "* Absent: %s\n", what)
	}
	for _, what := range m.failed {
		fmt.Fprintf(&b, "* FAILED: %s\n", strings.Join(strings.Fields(what), " "))
	}
	fmt.Fprintf(&b, "\n![CPU time per request](%s)\n", plotName)
	for _, sc := range todo {
		fmt.Fprintf(&b, "\n### %s%s\n\n", strings.ToUpper(sc.about[:1]), sc.about[1:])
		b.WriteString(table(sc, all, m))
		if names := loadBound(sc, all, m); len(names) > 0 {
			fmt.Fprintf(&b, "\nThe load was busier than the proxy, and bounds requests/s of: %s.\n", strings.Join(names, "; "))
		}
	}
	if text := observed(m); text != "" {
		b.WriteString("\n### What limit, log and metrics cost\n\n" + text)
	}
	if text := verdicts(m); text != "" {
		b.WriteString("\n### Against the bars of forwarding\n\n" + text)
	}
	return b.String()
}

// table returns the rows of a scenario, with ratios to Caddy.
func table(sc scenario, all []peer, m *measurements) string {
	header := []string{"proxy", "CPU us/request", "to Caddy", "requests/s", "p50 ms", "p99 ms", "RSS MB", "proxy busy", "load busy"}
	var rows [][]string
	for _, p := range sc.with(all) {
		f := m.get(sc.name, p.name)
		if len(f.micros) == 0 {
			continue // absent or failed, which is said above
		}
		rows = append(rows, []string{
			p.name, report.Middle(f.micros, 1), times(m.ratios(sc.name, p.name, nameCaddy)),
			report.Middle(f.rate, 0), number(f.p50, 2), number(f.p99, 2), number(f.rss, 0), percent(f.busy), percent(f.load),
		})
	}
	return report.Table(header, rows)
}

// loadBound returns the peers that waited for the load more than it did for them.
func loadBound(sc scenario, all []peer, m *measurements) []string {
	var names []string
	for _, p := range sc.with(all) {
		f := m.get(sc.name, p.name)
		if p.name != nameDirect && report.Median(f.load) > report.Median(f.busy) {
			names = append(names, p.name)
		}
	}
	return names
}

// observed compares Isekai with limit, log and metrics with the same build without them,
// and with Caddy that writes an access log.
func observed(m *measurements) string {
	header := []string{"", "to the same build without", "to Caddy with access log", "to Caddy without"}
	var rows [][]string
	for _, name := range []string{nameLogged, namePostgres} {
		if len(m.get(scenarioShort, name).micros) == 0 {
			continue
		}
		rows = append(rows, []string{
			name, times(m.ratios(scenarioShort, name, m.fastest(scenarioShort))),
			times(m.ratios(scenarioShort, name, nameCaddyLog)), times(m.ratios(scenarioShort, name, nameCaddy)),
		})
	}
	if len(rows) == 0 {
		return ""
	}
	return report.Table(header, rows)
}

func verdicts(m *measurements) string {
	var rows [][]string
	for _, bar := range bars(m) {
		if len(bar.ratios) == 0 {
			continue
		}
		rows = append(rows, []string{
			bar.what, times(bar.ratios), report.Times(bar.most), report.Times(bar.target),
			report.Verdict(report.Median(bar.ratios), bar.most, bar.target),
		})
	}
	if len(rows) == 0 {
		return ""
	}
	return report.Table([]string{"what", "measured", "bar", "stretch goal", ""}, rows)
}

// panels are the plot's.
func panels(all []peer, todo []scenario, m *measurements) []report.Panel {
	var cost, ratio []report.Bar
	for _, sc := range todo {
		for _, p := range sc.with(all) {
			f := m.get(sc.name, p.name)
			if len(f.micros) == 0 {
				continue
			}
			if sc.name == scenarioShort {
				cost = append(cost, newBar(p.name, f.micros, 1, p.ours))
			}
			if ratios := m.ratios(sc.name, p.name, nameCaddy); p.ours && len(ratios) > 0 {
				ratio = append(ratio, newBar(sc.name+": "+strings.TrimPrefix(p.name, "Isekai, "), ratios, 2, true))
			}
		}
	}
	var drawn []report.Panel
	if len(cost) > 0 {
		drawn = append(drawn, report.Panel{
			Title: "CPU time of the proxy per request, 128-byte answers (less is better)", Unit: "microseconds", Bars: cost,
			Mark: mark(m.get(scenarioShort, nameCaddy).micros),
		})
	}
	if len(ratio) > 0 {
		drawn = append(drawn, report.Panel{
			Title: "CPU time of Isekai against Caddy's reverse_proxy (less is better)", Unit: "times Caddy's", Bars: ratio, Mark: 1,
		})
	}
	return drawn
}

func newBar(label string, values []float64, digits int, ours bool) report.Bar {
	low, high := report.Quartiles(values)
	return report.Bar{Label: label, Value: report.Median(values), Low: low, High: high, Digits: digits, Ours: ours}
}

// mark is where Caddy's bar ends, or 0.
func mark(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	return report.Median(values)
}

func times(ratios []float64) string {
	if len(ratios) == 0 {
		return "-"
	}
	return report.Middle(ratios, 2) + " x"
}

func number(values []float64, digits int) string {
	if len(values) == 0 {
		return "-"
	}
	return fmt.Sprintf("%.*f", digits, report.Median(values))
}

func percent(parts []float64) string {
	median := report.Median(parts)
	if math.IsNaN(median) {
		return "-"
	}
	return fmt.Sprintf("%.0f %%", 100*median)
}
