package main

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/isekai-gateway/isekai/bench/internal/report"
)

// The project's own bar for the p99 from commit to served on every replica, and what it
// would be good to reach.
const barMs, stretchMs = 50, 10

// render returns the section of RESULTS.md. Every number in it is of this run.
func render(s settings, m *measurements, info runInfo) string {
	var b strings.Builder
	b.WriteString("## From commit to served\n\n")
	fmt.Fprintf(&b, "* Machine: %s\n", report.Machine())
	fmt.Fprintf(&b, "* Load average before it: %s, after it: %s (0 is a machine that does nothing else; this alone makes less than 1)\n", info.load, info.loadAfter)
	fmt.Fprintf(&b, "* Date: %s\n", info.began.UTC().Format(time.DateOnly))
	fmt.Fprintf(&b, "* Command: `%s`\n", info.command)
	fmt.Fprintf(&b, "* PostgreSQL: %s, on the same machine\n", info.server)
	fmt.Fprintf(&b, "* %d gateways, %d routes, %d changes of one route in plain SQL; polling is off\n\n", s.replicas, s.routes, s.samples)

	b.WriteString("Milliseconds. The time begins as the commit is sent, so that the commit is in it. `barrier` is what `wait=applied` adds\nto a write through a gateway.\n\n")
	header := []string{"", "p50", "p90", "p99", "most"}
	var rows [][]string
	for _, part := range []struct {
		name string
		of   figures
	}{{fmt.Sprintf("idle, %.0f changes/s", m.idle.writes), m.idle}, {fmt.Sprintf("at load, %.0f changes/s", m.loaded.writes), m.loaded}} {
		for _, row := range []struct {
			name  string
			times []time.Duration
		}{{"all gateways serve it", part.of.all}, {"the first does", part.of.first}, {"barrier", part.of.barrier}} {
			cells := []string{part.name + ": " + row.name}
			for _, p := range []float64{.5, .9, .99, 1} {
				cells = append(cells, fmt.Sprintf("%.2f", milliseconds(row.times, p)))
			}
			rows = append(rows, cells)
		}
	}
	b.WriteString(report.Table(header, rows))
	fmt.Fprintf(&b, "\nThe p99 until all gateways serve it, against %d ms (stretch goal %d):\n\n", barMs, stretchMs)
	for _, part := range []struct {
		name string
		of   figures
	}{{"idle", m.idle}, {"at load", m.loaded}} {
		p99 := milliseconds(part.of.all, .99)
		fmt.Fprintf(&b, "* %s: %.2f ms %s.\n", part.name, p99, report.Verdict(p99, barMs, stretchMs))
	}
	return b.String()
}

// milliseconds returns the p-th quantile of sorted times, by the nearest rank.
func milliseconds(sorted []time.Duration, p float64) float64 {
	if len(sorted) == 0 {
		return math.NaN()
	}
	rank := int(math.Ceil(p*float64(len(sorted)))) - 1
	return float64(sorted[max(0, rank)]) / float64(time.Millisecond)
}
