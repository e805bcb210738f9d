package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"golang.org/x/perf/benchfmt"
	"golang.org/x/perf/benchmath"
)

// A benchmark's name is its subject, and then key=value: what it is done with (set), by
// which library (lib), and what is done (op).
const (
	keySet = "set"
	keyLib = "lib"
	keyOp  = "op"
)

// cell is what one library does with a set.
type cell struct{ subject, set, op, lib string }

// result is all values of a cell, by their unit.
type result struct {
	cell
	values map[string][]float64
}

// Units of benchfmt's.
const (
	unitTime   = "sec/op"
	unitMemory = "B/op"
	unitAllocs = "allocs/op"
)

// parse reads the output of benchmarks. Results are in the order in which their cells
// came first.
func parse(text io.Reader) ([]*result, error) {
	var all []*result
	byCell := make(map[cell]*result)
	reader := benchfmt.NewReader(text, "go test")
	for reader.Scan() {
		switch record := reader.Result().(type) {
		case *benchfmt.SyntaxError:
			return nil, fmt.Errorf("reading benchmarks: %w", record)
		case *benchfmt.Result:
			c, err := parseName(record.Name)
			if err != nil {
				return nil, err
			}
			r := byCell[c]
			if r == nil {
				r = &result{cell: c, values: make(map[string][]float64)}
				byCell[c] = r
				all = append(all, r)
			}
			for _, v := range record.Values {
				r.values[v.Unit] = append(r.values[v.Unit], v.Value)
			}
		}
	}
	return all, reader.Err()
}

func parseName(name benchfmt.Name) (cell, error) {
	base, parts := name.Parts()
	c := cell{subject: string(base)}
	for _, part := range parts {
		key, value, _ := strings.Cut(strings.TrimPrefix(string(part), "/"), "=")
		value = strings.ReplaceAll(value, "_", " ") // as go test writes spaces
		switch key {
		case keySet:
			c.set = value
		case keyLib:
			c.lib = value
		case keyOp:
			c.op = value
		default:
			if !strings.HasPrefix(string(part), "-") { // the number of processors
				return cell{}, fmt.Errorf("the benchmark %s has %q in its name", name.Full(), part)
			}
		}
	}
	if c.lib == "" || c.op == "" {
		return cell{}, fmt.Errorf("the benchmark %s names no library, or nothing that is done", name.Full())
	}
	return c, nil
}

// confidence of the bounds of medians.
const confidence = 0.95

// summary formats values, of which the median is scaled: "41.2 ± 3 %". Too few of them
// have no bounds.
func summary(values []float64, scale float64) string {
	if len(values) == 0 {
		return "-"
	}
	s := benchmath.AssumeNothing.Summary(newSample(values), confidence)
	within := strings.TrimSuffix(s.PctRangeString(), "%")
	if within == "∞" {
		return short(s.Center * scale)
	}
	return fmt.Sprintf("%s ± %s %%", short(s.Center*scale), within)
}

// ratio formats how many times base's median values' is: "1.43 x", or "~" if the two
// can't be told apart.
func ratio(values, base []float64) string {
	if len(values) == 0 || len(base) == 0 {
		return "-"
	}
	if &values[0] == &base[0] {
		return "1.00 x" // itself
	}
	a, b := newSample(values), newSample(base)
	from, to := benchmath.AssumeNothing.Summary(b, confidence).Center, benchmath.AssumeNothing.Summary(a, confidence).Center
	if from == 0 {
		return "-"
	}
	if len(values) >= leastRounds && benchmath.AssumeNothing.Compare(b, a).P > benchmath.DefaultThresholds.CompareAlpha {
		return "~"
	}
	return fmt.Sprintf("%.2f x", to/from)
}

// newSample keeps values in their order, which NewSample would not.
func newSample(values []float64) *benchmath.Sample {
	return benchmath.NewSample(slices.Clone(values), &benchmath.DefaultThresholds)
}

// short formats a number with three digits that mean something, or all before the point.
func short(v float64) string {
	switch {
	case v >= 100 || v == 0:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}
