package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/isekai-gateway/isekai/bench/internal/report"
)

// The bars are the project's own.
const (
	barRows, stretchRows = 60_000, 150_000 // per second, sustained
	barQuestion          = time.Second     // "well under"
)

// runInfo is what a reader needs to know to judge a run.
type runInfo struct {
	command, load, server string
	began                 time.Time
}

// render returns the section of RESULTS.md. Every number in it is of this run.
func render(s settings, m *measurements, info runInfo) string {
	var b strings.Builder
	rate := float64(m.written) / m.took.Seconds()
	fmt.Fprintf(&b, "## Request log in PostgreSQL\n\n")
	fmt.Fprintf(&b, "* Machine: %s; PostgreSQL and the writers share it\n", report.Machine())
	fmt.Fprintf(&b, "* Load average before it: %s (0 is a machine that does nothing else)\n", info.load)
	fmt.Fprintf(&b, "* Date: %s\n", info.began.UTC().Format(time.DateOnly))
	fmt.Fprintf(&b, "* Command: `%s`\n", info.command)
	fmt.Fprintf(&b, "* Server: %s\n\n", info.server)
	fmt.Fprintf(&b, "%d rows of a day, in batches of %d by %d writer(s), in %s: %.0f rows a second. That %s the bar of %d, and %s the stretch goal of %d.\n\n",
		m.written, s.batch, s.writers, m.took.Round(time.Second), rate, verdict(rate >= barRows), barRows, verdict(rate >= stretchRows), stretchRows)
	fmt.Fprintf(&b, "Then the first page (%d rows) of:\n\n", page)
	rows := make([][]string, len(m.questions))
	worst := time.Duration(0)
	for i, q := range m.questions {
		rows[i] = []string{q.name, fmt.Sprint(q.rows), ms(q.median()), ms(q.worst())}
		worst = max(worst, q.worst())
	}
	b.WriteString(report.Table([]string{"question", "rows", "median, ms", "worst, ms"}, rows))
	fmt.Fprintf(&b, "\nThe worst took %s ms, which %s the bar of %d ms.\n", ms(worst), verdict(worst < barQuestion), barQuestion.Milliseconds())
	return b.String()
}

func ms(d time.Duration) string { return fmt.Sprintf("%.1f", float64(d.Microseconds())/1000) }

func verdict(ok bool) string {
	if ok {
		return "meets"
	}
	return "MISSES"
}
