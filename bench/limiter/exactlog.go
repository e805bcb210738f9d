package main

import (
	"slices"
	"time"
)

// exactLog is the limiter that the others come close to: the time of every admitted
// request since some beginning, in order, none of which counts after one window.
type exactLog []time.Duration

// allow admits the request at at if fewer than limit count.
func (l *exactLog) allow(at time.Duration) bool {
	if l.in(at) >= limit {
		return false
	}
	*l = append(*l, at)
	return true
}

// in returns how many were admitted in the window that ends at at, which must not
// be before any of them.
func (l exactLog) in(at time.Duration) int {
	i, _ := slices.BinarySearch(l, at-window+1)
	return len(l) - i
}
