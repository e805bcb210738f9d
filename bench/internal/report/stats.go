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

// Quartiles returns the values that a quarter and three quarters of values are not
// above, between two of them in proportion, and NaN if there are none.
func Quartiles(values []float64) (low, high float64) {
	return Quantile(values, 0.25), Quantile(values, 0.75)
}

// Quantile returns the value that the part q, 0 to 1, of values is not above, between
// two of them in proportion, and NaN if there are none. It leaves values as they are.
func Quantile(values []float64, q float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(values))
	at := min(max(q, 0), 1) * float64(len(sorted)-1)
	below := int(at)
	if below == len(sorted)-1 {
		return sorted[below]
	}
	return sorted[below] + (at-float64(below))*(sorted[below+1]-sorted[below])
}

// Ratios returns values[i]/base[i], where i is the round in which both were measured.
// A machine that is slower in one round is so for both, which a quotient of two
// medians would not know. It is nil unless both have the same number of rounds, or if
// a base is 0.
func Ratios(values, base []float64) []float64 {
	if len(values) != len(base) || slices.Contains(base, 0) {
		return nil
	}
	ratios := make([]float64, len(values))
	for i := range values {
		ratios[i] = values[i] / base[i]
	}
	return ratios
}

// Ratio returns the median of Ratios, NaN if there are none.
func Ratio(values, base []float64) float64 { return Median(Ratios(values, base)) }

// Spread formats values as their median and, in parentheses, the lowest and the
// highest: "412 (398-431)". No values are a dash.
func Spread(values []float64) string {
	if len(values) == 0 {
		return "-"
	}
	return fmt.Sprintf("%.0f (%.0f-%.0f)", Median(values), slices.Min(values), slices.Max(values))
}

// Middle formats values as their median and, in parentheses, their quartiles, with so
// many digits after the point: "41.2 (40.8-43.0)". No values are a dash.
func Middle(values []float64, digits int) string {
	if len(values) == 0 {
		return "-"
	}
	low, high := Quartiles(values)
	return fmt.Sprintf("%.*f (%.*f-%.*f)", digits, Median(values), digits, low, digits, high)
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
