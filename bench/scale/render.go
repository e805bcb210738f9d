package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/isekai-gateway/isekai/bench/internal/report"
	"github.com/isekai-gateway/isekai/cache"
)

// The project's own bars, and what it would be good to reach.
const (
	barMatch, stretchMatch = 1000, 300 // ns, at 100,000 routes
	barBuild, stretchBuild = 1, .3     // s, of 100,000 routes
	barMillion, stretchMil = 12, 4     // s, of 1,000,000
	barHeap, stretchHeap   = 1024, 400 // bytes per idle route
	barApply, stretchApply = 5, .2     // ms
	barLoad, stretchLoad   = 1.05, 1.02
)

// bar is a line of the verdict.
type bar struct {
	what              string
	got, bar, stretch float64
	format            string
}

// render returns the section of RESULTS.md. Every number in it is of this run.
func render(s settings, m *measurements, info runInfo) string {
	var b strings.Builder
	b.WriteString("## Scale\n\n")
	fmt.Fprintf(&b, "* Machine: %s\n", report.Machine())
	fmt.Fprintf(&b, "* Load average before it: %s, after it: %s (0 is a machine that does nothing else; this alone makes up to 3)\n", info.load, info.loadAfter)
	fmt.Fprintf(&b, "* Date: %s\n", info.began.UTC().Format(time.DateOnly))
	fmt.Fprintf(&b, "* Command: `%s`\n", info.command)
	b.WriteString("* PostgreSQL: started for it, with fsync off, on the same machine\n")
	fmt.Fprintf(&b, "* %d routes over %d hosts: a tenth of the hosts are wildcards, seven of ten routes have parameters, one of ten has a regexp, one of ten is a prefix, one of seven asks for a header field\n\n", s.routes, s.hosts)
	m.renderBars(&b, s)
	m.renderTables(&b)
	m.renderProcesses(&b, s)
	m.renderAdmin(&b)
	return b.String()
}

func (m *measurements) table(n int) *tableFigures {
	i := slices.IndexFunc(m.tables, func(f *tableFigures) bool { return f.routes == n })
	if i < 0 {
		return nil
	}
	return m.tables[i]
}

func (m *measurements) renderBars(b *strings.Builder, s settings) {
	var bars []bar
	if f := m.table(s.routes); f != nil {
		for _, match := range f.matches {
			bars = append(bars, bar{"match, " + match.name, report.Median(match.ns), barMatch, stretchMatch, "%.0f ns"})
			bars = append(bars, bar{"its allocations", match.allocs, .001, .001, "%.3f"})
		}
		bars = append(bars,
			bar{fmt.Sprintf("build the table of %d", f.routes), quantile(f.build, .5).Seconds(), barBuild, stretchBuild, "%.2f s"},
			bar{"apply a revision of one route, table alone, p99", ms(quantile(f.apply, .99)), barApply, stretchApply, "%.3f ms"},
		)
	}
	if f := m.table(s.million); f != nil {
		bars = append(bars, bar{fmt.Sprintf("build the table of %d", f.routes), quantile(f.build, .5).Seconds(), barMillion, stretchMil, "%.2f s"})
	}
	bars = append(bars,
		bar{"heap per idle route, row and table", m.database.heap, barHeap, stretchHeap, "%.0f B"},
		bar{"apply: reading the change and the table, medians", ms(quantile(m.database.changes, .5)) + ms(m.medianApply(s)), barApply, stretchApply, "%.2f ms"},
		bar{"CPU per request, all routes against one", ratio(m.loads[loadAll], m.loads[loadOne], func(r loadRound) time.Duration { return r.cpu }), barLoad, stretchLoad, "%.3f x"},
	)
	rows := make([][]string, len(bars))
	for i, x := range bars {
		rows[i] = []string{x.what, fmt.Sprintf(x.format, x.got), fmt.Sprint(x.bar), fmt.Sprint(x.stretch), report.Verdict(x.got, x.bar, x.stretch)}
	}
	b.WriteString("### Against the bars\n\n" + report.Table([]string{"what", "measured", "bar", "stretch", "verdict"}, rows) + "\n")
}

func (m *measurements) medianApply(s settings) time.Duration {
	if f := m.table(s.routes); f != nil {
		return quantile(f.apply, .5)
	}
	return 0
}

func (m *measurements) renderTables(b *strings.Builder) {
	b.WriteString("### The table alone\n\nNanoseconds of processor time per match, median of rounds (lowest-highest), each request another text in memory; one goroutine. Build and apply are in time that passes.\n\n")
	header := []string{"routes"}
	for _, t := range traffics {
		header = append(header, t.name)
	}
	header = append(header, "allocs", "build, s", "B/route", "apply p50, us", "p99, us")
	var rows [][]string
	for _, f := range m.tables {
		row := []string{fmt.Sprint(f.routes)}
		allocs := 0.0
		for _, t := range traffics {
			cell := "-"
			for _, match := range f.matches {
				if match.name == t.name {
					cell, allocs = report.Spread(match.ns), max(allocs, match.allocs)
				}
			}
			row = append(row, cell)
		}
		rows = append(rows, append(row, fmt.Sprintf("%.3f", allocs), fmt.Sprintf("%.3f", quantile(f.build, .5).Seconds()),
			fmt.Sprintf("%.0f", f.heap),
			fmt.Sprintf("%.0f", us(quantile(f.apply, .5))), fmt.Sprintf("%.0f", us(quantile(f.apply, .99)))))
	}
	b.WriteString(report.Table(header, rows) + "\n")
}

func (m *measurements) renderProcesses(b *strings.Builder, s settings) {
	d := m.database
	fmt.Fprintf(b, "### From PostgreSQL\n\n")
	fmt.Fprintf(b, "* Inserting %d routes as one revision: %.1f s.\n", s.routes+1, d.insert.Seconds())
	fmt.Fprintf(b, "* Reading them all (store.Load): %.0f ms, %.0f at the most.\n", ms(quantile(d.load, .5)), ms(quantile(d.load, 1)))
	fmt.Fprintf(b, "* Reading one change (store.Changes): p50 %.2f ms, p99 %.2f ms.\n", ms(quantile(d.changes, .5)), ms(quantile(d.changes, .99)))
	fmt.Fprintf(b, "* From the commit of one change until a gateway's table has it: p50 %.2f ms, p99 %.2f ms. In it are the commit, the announcement, and up to 5 ms debounce.\n", ms(quantile(d.served, .5)), ms(quantile(d.served, .99)))
	fmt.Fprintf(b, "* A row of the request log: %.0f bytes with its indexes, %.0f of them its table's.\n", m.sizes.logRow, m.sizes.logHeap)
	fmt.Fprintf(b, "* A minute's statistics of one replica with %d series: %d bytes.\n\n", m.sizes.series, m.sizes.document)

	rows := make([][]string, 0, 2)
	for i, name := range []string{"1", fmt.Sprint(s.routes + 1)} {
		column := func(of func(start) float64) string {
			values := make([]float64, len(m.starts[i]))
			for k, st := range m.starts[i] {
				values[k] = of(st)
			}
			return report.Spread(values)
		}
		rows = append(rows, []string{name,
			column(func(st start) float64 { return ms(st.took) }), column(func(st start) float64 { return ms(st.cpu) }),
			column(func(st start) float64 { return st.rss / 1e6 })})
	}
	b.WriteString("Cold start of the built binary, from its start until `/healthz/ready` is 200:\n\n" +
		report.Table([]string{"routes", "ms", "CPU ms", "resident, MB"}, rows) + "\n")

	where := "the gateway on one processor, load and backend on another; PostgreSQL where it finds room"
	if !m.pinned {
		where = "nothing is pinned"
	}
	fmt.Fprintf(b, "### At load\n\n%d connections, a request at a time each, %d requests a round, answers of %d bytes; request log off, statistics on; %s.\nMedians of %d rounds, each with new gateways; the ratio is to one route, round by round.\n\n", loadConns, s.requests, answerSize, where, len(m.loads[0]))
	rows = nil
	for i, name := range []string{"1 route", fmt.Sprintf("%d routes, the same requests", s.routes+1), "requests of all routes, evenly"} {
		column := func(of func(loadRound) float64) string {
			values := make([]float64, len(m.loads[i]))
			for k, r := range m.loads[i] {
				values[k] = of(r)
			}
			return report.Spread(values)
		}
		rows = append(rows, []string{name, column(func(r loadRound) float64 { return us(r.cpu) }),
			report.Times(ratio(m.loads[i], m.loads[loadOne], func(r loadRound) time.Duration { return r.cpu })),
			column(func(r loadRound) float64 { return us(r.p50) }), column(func(r loadRound) float64 { return us(r.p99) }),
			report.Times(ratio(m.loads[i], m.loads[loadOne], func(r loadRound) time.Duration { return r.p99 })),
			column(func(r loadRound) float64 { return r.rate })})
	}
	b.WriteString(report.Table([]string{"", "CPU us", "ratio", "p50, us", "p99, us", "ratio", "requests/s"}, rows) + "\n")
	if s.routes > cache.DefaultMaxSize {
		fmt.Fprintf(b, "With requests of all routes, evenly, most find no compiled pipeline: there are more routes than `cache.max_size`, %d.\n\n", cache.DefaultMaxSize)
	}
}

func (m *measurements) renderAdmin(b *strings.Builder) {
	b.WriteString("### The admin API\n\nWith all routes, the gateway on one processor. Medians; what writes, and YAML, once. `peak` is the process's resident memory at its most.\n\n")
	rows := make([][]string, len(m.admin))
	for i, f := range m.admin {
		rows[i] = []string{f.name, fmt.Sprintf("%.1f", ms(f.took)), fmt.Sprintf("%.1f", float64(f.answer)/1000), fmt.Sprintf("%.0f", f.peak/1e6)}
	}
	b.WriteString(report.Table([]string{"", "ms", "answer, KB", "peak, MB"}, rows))
}

// ratio returns the median of the quotients, round by round.
func ratio(of, to []loadRound, figure func(loadRound) time.Duration) float64 {
	var a, b []float64
	for i := range of {
		a, b = append(a, float64(figure(of[i]))), append(b, float64(figure(to[i])))
	}
	return report.Ratio(a, b)
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
func us(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
