package load

import (
	"cmp"
	"errors"
	"math"
	"slices"
	"time"
)

// OpenJob is a measurement of one proxy at a constant rate of requests, which are sent
// when they are due, however long those before them take. Its process is given it as
// JSON.
type OpenJob struct {
	Address string // host:port of HTTP/1.1, without TLS

	// Connections are opened at the beginning and kept, and used in turn. A request that
	// is due while none is free waits for one, and its waiting counts.
	Connections int

	Answer string // the last part of the path, one of answers
	Routes int    // requests go to so many routes in turn
	From   int    // see Job.From

	Rate       float64       // requests per second
	Warm, Time time.Duration // at that rate, of which the first is not counted

	Proxy []int         // the processes whose use is measured
	Late  time.Duration // see Job.Late
}

// OpenOutcome is what a measurement at a constant rate found.
type OpenOutcome struct {
	Began time.Time // when the first request that counts was due
	Rate  float64

	// Took is how long each request took, in the order in which they were due: from then
	// until its answer was read to the end. So a proxy that stops for a while has to
	// answer for all that should have been sent meanwhile.
	Took []time.Duration

	// Lag is by how much the load itself was late, at the 99th percentile: from when a
	// request was due, or a connection for it free if that was later, until it was sent.
	Lag time.Duration

	Waited int           // requests for which no connection was free when they were due
	CPU    time.Duration // of the proxy, with what it did later
	RSS    int64         // of the proxy at the end, bytes
}

// Micros returns the CPU time of the proxy for a request, in microseconds.
func (o OpenOutcome) Micros() float64 {
	return float64(o.CPU.Microseconds()) / float64(len(o.Took))
}

// Between returns how long those requests took that were due from from until to.
func (o OpenOutcome) Between(from, to time.Time) []time.Duration {
	first, end := o.index(from), o.index(to)
	return o.Took[first:max(first, end)]
}

// index returns the first request that was due at t or later.
func (o OpenOutcome) index(t time.Time) int {
	i := math.Ceil(t.Sub(o.Began).Seconds() * o.Rate)
	return int(min(max(i, 0), float64(len(o.Took))))
}

func (j OpenJob) check() error {
	switch {
	case j.Connections < 1:
		return errors.New("a load needs a connection")
	case j.Rate <= 0 || j.count(j.Time) < 1:
		return errors.New("a load needs a rate and a time in which at least one request is due")
	}
	return nil
}

// count returns how many requests are due in d.
func (j OpenJob) count(d time.Duration) int { return int(d.Seconds() * j.Rate) }

// Quantile returns the value that the part q, 0 to 1, of took is not above: one of
// them, and none in between. It is 0 if there are none.
func Quantile(took []time.Duration, q float64) time.Duration {
	if len(took) == 0 {
		return 0
	}
	return nearest(slices.SortedFunc(slices.Values(took), cmp.Compare[time.Duration]), q)
}

// Quantiles is Quantile for each of qs.
func Quantiles(took []time.Duration, qs ...float64) []time.Duration {
	sorted := slices.SortedFunc(slices.Values(took), cmp.Compare[time.Duration])
	all := make([]time.Duration, len(qs))
	for i, q := range qs {
		if len(sorted) > 0 {
			all[i] = nearest(sorted, q)
		}
	}
	return all
}

func nearest(sorted []time.Duration, q float64) time.Duration {
	rank := int(math.Ceil(q * float64(len(sorted))))
	return sorted[min(max(rank, 1), len(sorted))-1]
}
