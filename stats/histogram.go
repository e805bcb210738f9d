package stats

import (
	"math"
	"sync/atomic"
	"time"
)

// Schema is the resolution of histograms in the terms of Prometheus' native ones
// (https://prometheus.io/docs/specs/native_histograms): every bucket ends 2^(2^-3) times
// higher than the one before, by 9 %. Bucket i holds durations above Bound(i-1) seconds,
// up to and including Bound(i).
const Schema = 3

const (
	perOctave = 1 << Schema

	// From 7.6 microseconds to 1.1 hours; what is shorter or longer counts in the
	// first or last bucket.
	minBucket = -17 * perOctave
	maxBucket = 12 * perOctave
	buckets   = maxBucket - minBucket + 1
)

// ClassicBounds are the upper bounds of the buckets, in seconds, for readers that
// don't know native histograms. They are counted apart, since none of the other bounds is
// a round number.
var ClassicBounds = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}

const classicBuckets = 14

// mantissas are 2^(-1+i/8), the bounds within an octave as math.Frexp has them.
var mantissas = func() (m [perOctave]float64) {
	for i := range m {
		m[i] = math.Exp2(-1 + float64(i)/perOctave)
	}
	return m
}()

// Bound returns the upper bound of bucket i, in seconds.
func Bound(i int) float64 { return math.Exp2(float64(i) / perOctave) }

// bucketOf returns the bucket of a duration.
func bucketOf(d time.Duration) int {
	if d <= 0 {
		return minBucket
	}
	fraction, exponent := math.Frexp(d.Seconds())
	i := 0
	for i < perOctave && fraction > mantissas[i] {
		i++
	}
	return min(max((exponent-1)*perOctave+i, minBucket), maxBucket)
}

// Histogram counts durations. The zero value is ready. It is safe for concurrent use.
type Histogram struct {
	sum     atomic.Int64 // nanoseconds
	counts  [buckets]atomic.Uint64
	classic [classicBuckets]atomic.Uint64
}

// Observe counts a duration.
func (h *Histogram) Observe(d time.Duration) {
	h.sum.Add(int64(d))
	h.counts[bucketOf(d)-minBucket].Add(1)
	seconds := d.Seconds()
	for i, bound := range ClassicBounds {
		if seconds <= bound {
			h.classic[i].Add(1)
			return
		}
	}
}

// Snapshot returns what was counted so far. Observations that are made meanwhile may be
// in one of its numbers and not in another.
func (h *Histogram) Snapshot() HistogramSnapshot {
	s := HistogramSnapshot{Sum: time.Duration(h.sum.Load()), Classic: make(map[float64]uint64, classicBuckets), Buckets: make(map[int]int64)}
	var below uint64
	for i, bound := range ClassicBounds {
		below += h.classic[i].Load()
		s.Classic[bound] = below
	}
	for i := range h.counts {
		if n := h.counts[i].Load(); n > 0 {
			s.Buckets[minBucket+i] = int64(n)
			s.Count += n
		}
	}
	return s
}

// HistogramSnapshot is what a Histogram has counted.
type HistogramSnapshot struct {
	Count   uint64
	Sum     time.Duration
	Classic map[float64]uint64 // observations up to each of ClassicBounds
	Buckets map[int]int64      // observations in each bucket of Schema, without empty ones
}
