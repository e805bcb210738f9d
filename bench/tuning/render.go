package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/isekai-gateway/isekai/bench/internal/report"
)

// runInfo is what a reader has to know of a run.
type runInfo struct {
	command string
	began   time.Time
	load    string
}

// render returns a group's section. Every number in it is of this run.
func render(s settings, g group, m *measurements, info runInfo) string {
	var b strings.Builder
	header := []string{"", "CPU us/request", "ratio", "requests/s", "RSS MB", fmt.Sprintf("p99 ms at %.0f/s", m.rate), "p99.9 ms"}
	base := m.get(g.variants[0].name)
	var rows [][]string
	for _, v := range g.variants {
		f := m.get(v.name)
		if len(f.micros) == 0 {
			continue // failed, which is said below
		}
		ratio := "-"
		if ratios := report.Ratios(f.micros, base.micros); len(ratios) > 0 {
			ratio = report.Middle(ratios, 2) + " x"
		}
		rows = append(rows, []string{
			"`" + v.name + "`", report.Middle(f.micros, 1), ratio, report.Middle(f.rate, 0),
			report.Middle(f.rss, 0), report.Middle(f.p99, 2), report.Middle(f.p999, 2),
		})
	}
	b.WriteString(report.Table(header, rows))
	fmt.Fprintf(&b, "\n%s; %d rounds of %v, medians and quartiles; latencies with an open loop at %.0f %% of what the first can do. %s; load average before it %s; %s; `%s`.\n",
		strings.ToUpper(g.about[:1])+g.about[1:], s.rounds, s.time, 100*s.share, report.Machine(), info.load,
		info.began.UTC().Format(time.DateOnly), info.command)
	for _, what := range m.failed {
		fmt.Fprintf(&b, "\nFAILED: %s\n", strings.Join(strings.Fields(what), " "))
	}
	return b.String()
}
