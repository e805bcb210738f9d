package report

import (
	"fmt"
	"math"
	"slices"
)

// Median returns the middle of values, the mean of the two in the middle if their
// number is even, and NaN if there are none. It leaves values as they are.
func Median(values []float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}

// Ratio returns the median of values[i]/base[i], where i is the round in which both
// were measured. A machine that is slower in one round is so for both, which a
// quotient of two medians would not know. It is NaN unless both have the same
// number of rounds, or if a base is 0.
func Ratio(values, base []float64) float64 {
	if len(values) != len(base) {
		return math.NaN()
	}
	ratios := make([]float64, len(values))
	for i := range values {
		if base[i] == 0 {
			return math.NaN()
		}
		ratios[i] = values[i] / base[i]
	}
	return Median(ratios)
}

// Spread formats values as their median and, in parentheses, the lowest and the
// highest: "412 (398-431)". No values are a dash.
func Spread(values []float64) string {
	if len(values) == 0 {
		return "-"
	}
	return fmt.Sprintf("%.0f (%.0f-%.0f)", Median(values), slices.Min(values), slices.Max(values))
}

// Times formats a ratio as "1.23 x"; NaN is a dash.
func Times(ratio float64) string {
	if math.IsNaN(ratio) {
		return "-"
	}
	return fmt.Sprintf("%.2f x", ratio)
}

// Verdict says whether got, where less is better, meets a bar and its stretch goal,
// all in the same unit.
func Verdict(got, bar, stretch float64) string {
	switch {
	case got <= stretch:
		return "meets the stretch goal"
	case got <= bar:
		return "meets the bar, misses the stretch goal"
	default:
		return "MISSES the bar"
	}
}
