package main

import (
	"fmt"
	"slices"
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

// subject is what benchmarks of one name are about.
type subject struct {
	name, title, about string
	ours               string // the library that ratios are to
}

var subjects = []subject{
	{
		"Routing", "Routing", "Finding the route of a request and its parameters, on one processor. chi has no hosts and is " +
			"left out of the sets that have some; ServeMux is left out of those of 100,000, since registering them takes minutes (it compares each pattern " +
			"that ends in a rest with all others), and its public look-up does not give out parameters. Each request is another " +
			"one out of 16,384, in no order.", "isekai, Table.Match",
	},
	{
		"Cache", "Cache of compiled routes", "Reads by all processors with a zipf distribution (exponent 1.1) over 100,000 keys; what is missing " +
			"is stored. Ours is otter with an expiry and release of values. \"hits\" is how many reads found something.", "isekai, cache",
	},
	{
		"Log", "Queue of the request log", "Adding a record from all processors to a queue of 65,536 places: \"add\" while one goroutine takes " +
			"them in batches of 1,000 and there is room, \"drop\" while it is full. Ours also tells those who watch the log live; nobody does here.",
		"isekai, Log.Add",
	},
	{
		"Pipeline", "Pipeline", "A request through a compiled route whose plugin answers 204, against that plugin alone, both behind what " +
			"Caddy prepares for each request; the rest is ours. Nothing is forwarded: for that see the section on forwarding.", "isekai, no policy",
	},
}

// render returns the section of RESULTS.md. Every number in it is of this run.
func render(s settings, all []*result, info runInfo) string {
	var b strings.Builder
	b.WriteString("## Parts, compared with libraries\n\n")
	fmt.Fprintf(&b, "* Machine: %s\n", report.Machine())
	fmt.Fprintf(&b, "* Load average before it: %s (0 is a machine that does nothing else)\n", info.load)
	fmt.Fprintf(&b, "* Date: %s\n", info.began.UTC().Format(time.DateOnly))
	fmt.Fprintf(&b, "* Command: `%s`\n", info.command)
	fmt.Fprintf(&b, "* %d rounds of %v for each; medians, with bounds that are 95 %% certain; \"~\" is a difference that the rounds do not prove (p > 0.05)\n",
		s.rounds, s.time)
	b.WriteString("* The limiter is compared in the section on rate limiters.\n")
	for _, sub := range subjects {
		of := only(all, func(r *result) bool { return r.subject == sub.name })
		if len(of) == 0 {
			continue
		}
		fmt.Fprintf(&b, "\n### %s\n\n%s\n", sub.title, sub.about)
		for _, set := range names(of, func(r *result) string { return r.set }) {
			in := only(of, func(r *result) bool { return r.set == set })
			if set != "" {
				fmt.Fprintf(&b, "\n#### %s\n", strings.ToUpper(set[:1])+set[1:])
			}
			b.WriteString("\n" + table(in, sub.ours))
		}
	}
	return b.String()
}

// table has a row for each library, and for each thing that is done its time, the ratio
// to ours, and what else was measured.
func table(of []*result, ours string) string {
	ops := names(of, func(r *result) string { return r.op })
	libs := names(of, func(r *result) string { return r.lib })
	header := []string{"library"}
	var columns []func(lib string) string
	for _, op := range ops {
		get := func(lib, unit string) []float64 {
			for _, r := range of {
				if r.op == op && r.lib == lib {
					return r.values[unit]
				}
			}
			return nil
		}
		header = append(header, op+", ns", "ratio")
		columns = append(columns,
			func(lib string) string { return summary(get(lib, unitTime), 1e9) },
			func(lib string) string { return ratio(get(lib, unitTime), get(ours, unitTime)) })
		for _, extra := range extras(of, op) {
			header = append(header, extra)
			columns = append(columns, func(lib string) string {
				values := get(lib, extra)
				if len(values) == 0 {
					return "-"
				}
				return short(report.Median(values))
			})
		}
	}
	var rows [][]string
	for _, lib := range libs {
		row := []string{lib}
		for _, column := range columns {
			row = append(row, column(lib))
		}
		rows = append(rows, row)
	}
	return report.Table(header, rows)
}

// extras returns the other units of an op, sorted. Memory and allocations come first.
func extras(of []*result, op string) []string {
	var units []string
	for _, r := range of {
		if r.op != op {
			continue
		}
		for unit := range r.values {
			if unit != unitTime && unit != unitMemory && unit != unitAllocs && !slices.Contains(units, unit) {
				units = append(units, unit)
			}
		}
	}
	slices.Sort(units)
	return append([]string{unitMemory, unitAllocs}, units...)
}

func only(all []*result, keep func(*result) bool) []*result {
	var kept []*result
	for _, r := range all {
		if keep(r) {
			kept = append(kept, r)
		}
	}
	return kept
}

// names returns each value once, in the order of the results.
func names(all []*result, of func(*result) string) []string {
	var list []string
	for _, r := range all {
		if name := of(r); !slices.Contains(list, name) {
			list = append(list, name)
		}
	}
	return list
}
