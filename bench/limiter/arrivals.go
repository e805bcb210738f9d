package main

import (
	"math/rand/v2"
	"slices"
	"time"
)

// duration is how long the traffic goes on that accuracy is measured with.
const duration = 200 * window

// arrivals is when the requests of one key come, in order.
type arrivals struct {
	kind string
	at   []time.Duration
}

var arrivalKinds = []string{"steady", "bursty", "window edge"}

// makeArrivals returns the traffic that the tests of the package ratelimit try too,
// from half the limit to ten times it.
func makeArrivals() []arrivals {
	all := []arrivals{
		{"window edge", perWindow(1, spread(2*limit, -time.Second, time.Second)...)},
		{"window edge", perWindow(2, append(spread(limit, -time.Second, 0), spread(limit, 0, window/2)...)...)},
		{"window edge", perWindow(3, append(spread(limit, -time.Second, 0), spread(3*limit, 0, 2*window-time.Second)...)...)},
		{"window edge", perWindow(1, append(spread(10, 0, 50*time.Second), spread(90, 59*time.Second, window)...)...)},
	}
	for _, rate := range []float64{0.5, 0.9, 1, 1.1, 1.5, 3, 10} {
		rnd := rand.New(rand.NewPCG(1, 2))
		step := time.Duration(float64(window) / limit / rate)
		all = append(all,
			arrivals{"steady", spread(int(duration/step), 0, duration)},
			arrivals{"steady", bursts(rnd, 1, rate)},
			arrivals{"bursty", bursts(rnd, 5, rate)},
			arrivals{"bursty", bursts(rnd, 20, rate)},
			arrivals{"bursty", bursts(rnd, limit, rate)},
		)
	}
	return all
}

// bursts returns bursts of size requests, 5 ms apart, at random times with the given
// mean rate in limits per window.
func bursts(rnd *rand.Rand, size int, rate float64) []time.Duration {
	var at []time.Duration
	gap := float64(size) * float64(window) / limit / rate
	for t := 0.0; t < float64(duration); t += gap * rnd.ExpFloat64() {
		for i := range size {
			at = append(at, time.Duration(t)+time.Duration(i)*5*time.Millisecond)
		}
	}
	slices.Sort(at)
	return at
}

// perWindow returns the given offsets in every nth window.
func perWindow(nth int, offsets ...time.Duration) []time.Duration {
	var at []time.Duration
	every := window * time.Duration(nth)
	for begins := window; begins < duration; begins += every {
		for _, offset := range offsets {
			at = append(at, begins+offset)
		}
	}
	return at
}

// spread returns n times, evenly from from to just before to.
func spread(n int, from, to time.Duration) []time.Duration {
	at := make([]time.Duration, n)
	for i := range at {
		at[i] = from + time.Duration(i)*(to-from)/time.Duration(n)
	}
	return at
}
