package ratelimit

import "math"

// maxRuns is how many runs a key has. Four keep the error against an exact log
// at 1 % on the traffic that the tests try, and a cell in one cache line.
const maxRuns = 4

// run stands for count charges spread evenly from first to last, one at each
// end. Times are ticks (see cell), which wrap around.
type run struct {
	first, last, count uint32
}

// runs is a log of charges in fixed memory, oldest first. Unused runs are at
// the end and have no count.
//
// A log of every charge is exact but as long as the limit. The usual remedy,
// two counters of which the previous one is weighted by how much of its window
// still counts, assumes that it was charged evenly. Where it was not, at a
// burst near the window's edge, it admits half the limit too much or too little.
// Runs keep where the charges were: a burst anywhere, a steady flow through any
// part of the window and up to four of them in turn are reproduced exactly.
// When a fifth is needed, the two neighbours that are told apart least become
// one, which is the merging histogram of Ben-Haim and Tom-Tov, "A Streaming
// Parallel Decision Tree Algorithm" (JMLR 11, 2010), over time instead of
// values and with the area between the curves as its measure.
type runs [maxRuns]run

// total returns how many charges the log holds.
func (rs *runs) total() uint32 {
	var n uint32
	for i := range rs {
		n += rs[i].count
	}
	return n
}

// drop forgets the charges at edge and before. No charge may be more than half
// the range of ticks away from edge.
func (rs *runs) drop(edge uint32) {
	gone := 0
	for gone < maxRuns && rs[gone].count > 0 && !later(rs[gone].last, edge) {
		gone++
	}
	if gone > 0 {
		n := copy(rs[:], rs[gone:])
		clear(rs[n:])
	}
	if r := &rs[0]; r.count > 1 && !later(r.first, edge) {
		span, gaps := uint64(r.last-r.first), uint64(r.count-1)
		passed := uint64(edge-r.first)*gaps/span + 1
		// Rounding up puts the new first after edge, and last never moves, so
		// that trimming often is as good as trimming once.
		r.first += uint32((passed*span + gaps - 1) / gaps)
		r.count -= uint32(passed)
	}
}

// nth returns when the nth charge was made, counted from 1. There must be as many.
func (rs *runs) nth(n uint32) uint32 {
	i := 0
	for n > rs[i].count {
		n -= rs[i].count
		i++
	}
	r := rs[i]
	if n == r.count {
		return r.last
	}
	span, gaps := uint64(r.last-r.first), uint64(r.count-1)
	return r.first + uint32((uint64(n-1)*span+gaps-1)/gaps)
}

// add logs count charges at tick, which must not be before any other.
func (rs *runs) add(tick, count uint32) {
	n := 0
	for n < maxRuns && rs[n].count > 0 {
		n++
	}
	if n > 0 && rs[n-1].first == tick {
		rs[n-1].count += count
		return
	}
	next := run{first: tick, last: tick, count: count}
	if n < maxRuns {
		rs[n] = next
		return
	}

	at, least := maxRuns-1, mergeError(rs[maxRuns-1], next)
	for i := range maxRuns - 1 {
		if e := mergeError(rs[i], rs[i+1]); e < least {
			at, least = i, e
		}
	}
	if at == maxRuns-1 {
		rs[at].last = tick
		rs[at].count += count
		return
	}
	rs[at].last = rs[at+1].last
	rs[at].count += rs[at+1].count
	copy(rs[at+1:], rs[at+2:])
	rs[maxRuns-1] = next
}

// mergeError returns by how much the number of charges over time would be wrong
// if a and b became one run: the area between the curve of both and the straight
// line through their ends, times two.
func mergeError(a, b run) float64 {
	span := b.last - a.first
	if span == 0 {
		return 0
	}
	slope := float64(a.count+b.count-1) / float64(span)
	atEnd := math.Abs(float64(a.count-1) - slope*float64(a.last-a.first))
	atStart := math.Abs(float64(a.count) - slope*float64(b.first-a.first))
	return atEnd*float64(b.first-a.first) + atStart*float64(b.last-a.last)
}

// later reports whether tick a is after b.
func later(a, b uint32) bool { return int32(a-b) > 0 }
