package main

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/isekai-gateway/isekai/bench/internal/report"
)

// The bars are the project's own: what a decision in memory may cost, with a million
// keys and two processors, and what it would be good to reach.
const (
	barNs, stretchNs       = 250, 100
	barBytes, stretchBytes = 100, 48
	barError, stretchError = 0.02, 0.005
)

// render returns the section of RESULTS.md. Every number in it is of this run.
func render(s settings, contenders []contender, m *measurements, accurate []accuracy, info runInfo) string {
	var b strings.Builder
	fmt.Fprintf(&b, "## Rate limiters in memory\n\n")
	fmt.Fprintf(&b, "* Machine: %s\n", report.Machine())
	fmt.Fprintf(&b, "* Load average before it: %s (0 is a machine that does nothing else)\n", info.load)
	fmt.Fprintf(&b, "* Date: %s\n", info.began.UTC().Format(time.DateOnly))
	fmt.Fprintf(&b, "* Command: `%s`\n", info.command)
	fmt.Fprintf(&b, "* %d keys, %d a minute each, %d decisions per cell and round (handlers: a quarter); median (lowest-highest) of %d rounds\n\n",
		s.keys, limit, s.decisions, s.rounds)

	b.WriteString("### Cost of a decision\n\n")
	b.WriteString("Nanoseconds that pass per decision, all processors deciding. Behind it the ratio to the first row, by rounds.\n\n")
	b.WriteString(costs("library", groupLibrary, contenders, m))
	b.WriteString("\nAs Caddy handlers, with the key taken from the request and the answer's fields written:\n\n")
	b.WriteString(costs("handler", groupHandler, contenders, m))

	b.WriteString("\n### Accuracy\n\n")
	b.WriteString("What is admitted, compared with an exact log, at its worst; and the most in any window, of which the log has at most ")
	fmt.Fprintf(&b, "%d.\n\n", limit)
	b.WriteString(errorTable(accurate))
	b.WriteString("\ncaddy-ratelimit, go-limiter and ulule/limiter have no clock that could be set from outside, and are left out.\n")

	b.WriteString("\n### Against the bars\n\n")
	b.WriteString(verdicts(contenders, m, accurate))
	return b.String()
}

// costs returns the table of a group, with ratios to the first of ours in it.
func costs(title, group string, contenders []contender, m *measurements) string {
	header := []string{title}
	for _, name := range trafficNames {
		header = append(header, name+", ns", "ratio")
	}
	header = append(header, "B/key", "ratio")
	var base *figures
	var rows [][]string
	for _, c := range contenders {
		if c.group != group {
			continue
		}
		f := m.of[c.name]
		if base == nil && c.ours {
			base = f
		}
		row := []string{c.name}
		for _, name := range trafficNames {
			row = append(row, report.Spread(f.ns[name]), report.Times(report.Ratio(f.ns[name], base.ns[name])))
		}
		row = append(row, fmt.Sprintf("%.0f", report.Median(f.bytes)), report.Times(report.Ratio(f.bytes, base.bytes)))
		rows = append(rows, row)
	}
	return report.Table(header, rows)
}

func errorTable(accurate []accuracy) string {
	header := append([]string{"limiter"}, arrivalKinds...)
	header = append(header, "most in a window")
	var rows [][]string
	for _, a := range accurate {
		row := []string{a.name}
		for _, kind := range arrivalKinds {
			row = append(row, fmt.Sprintf("%+.2f %%", 100*a.worst[kind]))
		}
		rows = append(rows, append(row, fmt.Sprint(a.most)))
	}
	return report.Table(header, rows)
}

// verdicts says where the first of ours stands.
func verdicts(contenders []contender, m *measurements, accurate []accuracy) string {
	var b strings.Builder
	ours := contenders[0].name
	fmt.Fprintf(&b, "%s, against %d ns (stretch goal %d), %d bytes a key (%d) and an error of %g %% (%g):\n\n",
		ours, barNs, stretchNs, barBytes, stretchBytes, 100*barError, 100*stretchError)
	f := m.of[ours]
	for _, name := range trafficNames {
		ns := report.Median(f.ns[name])
		fmt.Fprintf(&b, "* %s: %.0f ns %s.\n", name, ns, report.Verdict(ns, barNs, stretchNs))
	}
	bytes := report.Median(f.bytes)
	fmt.Fprintf(&b, "* Memory: %.0f bytes a key %s. After Sweep with all keys idle, %.2f are left of them.\n",
		bytes, report.Verdict(bytes, barBytes, stretchBytes), math.Abs(report.Median(m.swept)))
	worst := 0.0
	for _, off := range accurate[0].worst {
		worst = max(worst, math.Abs(off))
	}
	fmt.Fprintf(&b, "* Error: %.2f %% %s.\n", 100*worst, report.Verdict(worst, barError, stretchError))
	return b.String()
}
