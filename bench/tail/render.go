package main

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/isekai-gateway/isekai/bench/internal/load"
	"github.com/isekai-gateway/isekai/bench/internal/report"
)

// render returns the section of RESULTS.md. Every number in it is of this run.
func render(s settings, all []contestant, m *measurements) string {
	var b strings.Builder
	b.WriteString("## The tail\n\n")
	fmt.Fprintf(&b, "* Machine: %s\n", report.Machine())
	fmt.Fprintf(&b, "* Load average before it: %s (0 is a machine that does nothing else)\n", m.load)
	fmt.Fprintf(&b, "* Date: %s\n", m.began.UTC().Format(time.DateOnly))
	fmt.Fprintf(&b, "* Command: `%s`\n", m.command)
	fmt.Fprintf(&b, "* Open loop: %.0f requests/s, whatever is answered, for %v in each of %d rounds, over %d connections that are kept; GET, 128-byte answers\n",
		m.rate, s.time, s.rounds, s.connections)
	if s.rate == 0 {
		fmt.Fprintf(&b, "* That rate is %.0f %% of what %s can do, which can do least\n", 100*s.share, m.slowest)
	}
	for _, what := range m.absent {
		fmt.Fprintf(&b, "* Absent: %s\n", what)
	}
	for _, what := range m.failed {
		fmt.Fprintf(&b, "* FAILED: %s\n", strings.Join(strings.Fields(what), " "))
	}
	fmt.Fprintf(&b, "\n### At %.0f requests/s\n\n", m.rate)
	b.WriteString("Milliseconds from when a request was due until its answer was read; medians of the rounds, and in parentheses " +
		"quartiles; max is the longest of all.\n\n")
	b.WriteString(tails(all, m))
	if text := lateness(all, m); text != "" {
		b.WriteString("\n" + text)
	}
	if text := events(all, m); text != "" {
		b.WriteString("\n### While something goes on\n\n" +
			"Requests of Isekai with limit, log and metrics that were due while it did, all rounds together, and in the first row those of " +
			"rounds in which nothing did. The request log is written all the time, every second or every 1,000 requests.\n\n" + text)
	}
	return b.String()
}

// tails returns the rows of all that were measured, but events.
func tails(all []contestant, m *measurements) string {
	header := []string{"proxy", "p50 ms", "p99 ms", "p99.9 ms", "max ms", "to its saturation", "saturation, requests/s", "CPU us/request", "RSS MB", "GC cycles"}
	var rows [][]string
	for _, c := range all {
		f := m.of[c.name]
		if f == nil || c.event.is() || len(f.p50) == 0 {
			continue
		}
		saturation, part := "-", "-"
		if len(f.saturation) > 0 {
			saturation = report.Middle(f.saturation, 0)
			part = fmt.Sprintf("%.0f %%", 100*m.rate/report.Median(f.saturation))
		}
		rows = append(rows, []string{
			c.name, report.Middle(f.p50, 2), report.Middle(f.p99, 2), report.Middle(f.p999, 2), fmt.Sprintf("%.1f", slices.Max(f.max)),
			part, saturation, fmt.Sprintf("%.1f", report.Median(f.micros)), fmt.Sprintf("%.0f", report.Median(f.rss)), count(f.collections),
		})
	}
	return report.Table(header, rows)
}

// count formats how many there were in a round, or a dash where nobody says so.
func count(values []float64) string {
	if median := report.Median(values); !math.IsNaN(median) {
		return fmt.Sprintf("%.0f", median)
	}
	return "-"
}

// lagBound is what of a proxy's latency may be the load's own, at the 99th percentile.
const lagBound = 0.1

// lateness says where the load was late itself, or requests waited for a connection.
func lateness(all []contestant, m *measurements) string {
	var b strings.Builder
	lag, late := 0.0, []string(nil)
	for _, c := range all {
		f := m.of[c.name]
		if f == nil || len(f.lag) == 0 {
			continue
		}
		lag = max(lag, report.Median(f.lag))
		if report.Median(f.lag) > lagBound*report.Median(f.p99) {
			late = append(late, c.name)
		}
	}
	fmt.Fprintf(&b, "The load sent 99 %% of its requests at most %.2f ms after they were due.", lag)
	if len(late) > 0 {
		fmt.Fprintf(&b, " That is more than a tenth of the p99 of: %s.", strings.Join(late, "; "))
	}
	b.WriteString("\n")
	for _, c := range all {
		if f := m.of[c.name]; f != nil && f.waited > 0 {
			fmt.Fprintf(&b, "%s: %d of %d requests waited for a connection, and that counts.\n", c.name, f.waited, f.requests)
		}
	}
	return b.String()
}

// events compares what happened under load with the same gateway when it did not.
func events(all []contestant, m *measurements) string {
	header := []string{"while", "p50 ms", "p99 ms", "p99.9 ms", "max ms", "requests", "times", "one lasts ms", "GC cycles"}
	var rows [][]string
	quiet := ""
	for _, c := range all {
		f := m.of[c.name]
		if !c.event.is() || f == nil || len(f.during) == 0 {
			continue
		}
		if base := m.of[c.quiet]; quiet == "" && base != nil && len(base.p50) > 0 {
			quiet = c.quiet
			rows = append(rows, []string{
				"nothing", number(base.p50), number(base.p99), number(base.p999), fmt.Sprintf("%.1f", slices.Max(base.max)),
				fmt.Sprint(base.requests), "-", "-", count(base.collections),
			})
		}
		q := load.Quantiles(f.during, 0.5, 0.99, 0.999, 1)
		row := []string{c.name}
		for i, digits := range []int{2, 2, 2, 1} {
			row = append(row, fmt.Sprintf("%.*f", digits, float64(q[i])/ms))
		}
		if len(f.during) < 1000 {
			row[3] = "-" // the longest of so few
		}
		rows = append(rows, append(row, fmt.Sprint(len(f.during)), fmt.Sprint(f.events), report.Spread(f.lasted), count(f.collections)))
	}
	if len(rows) == 0 {
		return ""
	}
	return report.Table(header, rows)
}

func number(values []float64) string { return fmt.Sprintf("%.2f", report.Median(values)) }
