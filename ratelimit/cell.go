package ratelimit

import (
	"math/bits"
	"time"
)

// cell is what one key has used under one rule: 64 bytes, one cache line, and no
// pointer, so that the garbage collector has nothing to look for in a million of
// them.
//
// Two things bound what is admitted. The log of runs holds any window that
// ends now to the limit, as closely as four runs can tell. The count holds
// each aligned window (those that begin at multiples of their length) to it
// without any error. Since every window touches at most two aligned ones, no
// window ever has more than twice the limit, whatever the traffic.
type cell struct {
	start  int64  // of the aligned window last decided in, ns since the Unix epoch
	log    runs   // what was charged, in ticks
	state  uint32 // count<<markBits | marks
	millis uint32 // length of the window
}

// marks is what eviction wants to know of a key besides its use.
type marks uint32

const (
	// touched: asked for again since it was added or eviction last passed.
	touched marks = 1 << iota
	// full: the last decision refused or left nothing.
	full

	markBits = 2 // MaxLimit fits in the rest
)

func newCell(window time.Duration) cell {
	return cell{millis: uint32(window / time.Millisecond)}
}

// moment is a time as a cell's log counts it. A tick is the least power of two
// of nanoseconds of which a window is at most 2^30, 64 ns for a minute, so that
// times up to three windows old are told apart in 32 bits.
type moment struct {
	now    int64  // ns since the Unix epoch
	window int64  // ns
	shift  int    // a tick is 1<<shift ns
	edge   uint32 // the last tick that no longer counts
}

func (c *cell) at(now int64) moment {
	window := int64(c.millis) * int64(time.Millisecond)
	shift := max(bits.Len64(uint64(window-1))-30, 0)
	return moment{now, window, shift, uint32(now>>shift) - uint32(window>>shift)}
}

func (m moment) tick() uint32 { return uint32(m.now >> m.shift) }

// count returns how many units were charged in the aligned window.
func (c *cell) count() uint32 { return c.state >> markBits }

// used returns how many units count against the limit.
func (c *cell) used() uint32 { return max(c.log.total(), c.count()) }

func (c *cell) has(m marks) bool { return marks(c.state)&m != 0 }

func (c *cell) setMarks(m marks) { c.state = c.state>>markBits<<markBits | uint32(m) }

// advance forgets what no longer counts at m, which must not be before the
// time of the last call.
func (c *cell) advance(m moment) {
	if m.now >= c.start+m.window {
		if m.now >= c.start+2*m.window {
			c.log = runs{}
		}
		c.start = m.now - m.now%m.window
		c.state = 0
	}
	c.log.drop(m.edge)
}

// decide says whether cost fits under limit at now and, if charge is set and
// it does, charges it.
func (c *cell) decide(now int64, limit, cost uint32, charge bool) Decision {
	m := c.at(now)
	c.advance(m)
	used := c.used()
	d := Decision{Limit: int(limit)}
	if uint64(used)+uint64(cost) > uint64(limit) {
		d.RetryAfter = c.wait(m, limit-min(limit, cost))
	} else {
		d.Allowed = true
		if charge && cost > 0 {
			c.log.add(m.tick(), cost)
			c.state += cost << markBits
			used += cost
		}
	}
	d.Remaining = int(limit - min(limit, used))
	if d.Remaining < d.Limit {
		d.Reset = c.wait(m, limit-uint32(d.Remaining)-1)
	}
	return d
}

// wait returns how long it takes until at most room units count: at least 1 ns,
// at most one window.
func (c *cell) wait(m moment, room uint32) time.Duration {
	var wait int64 = 1
	if total := c.log.total(); total > room {
		ticks := c.log.nth(total-room) - m.edge
		wait = int64(ticks)<<m.shift - m.now&(1<<m.shift-1)
	}
	if c.count() > room {
		wait = max(wait, c.start+m.window-m.now)
	}
	return time.Duration(wait)
}

// idle reports whether nothing in the cell counts any more at now.
func (c *cell) idle(now int64) bool {
	m := c.at(now)
	if now >= c.start+2*m.window {
		return true
	}
	if c.current(m) && c.count() > 0 {
		return false
	}
	for i := range c.log {
		if c.log[i].count > 0 && later(c.log[i].last, m.edge) {
			return false
		}
	}
	return true
}

// current reports whether the aligned window last decided in still goes on.
func (c *cell) current(m moment) bool { return m.now < c.start+m.window }

// limitedRank and above is the rank of cells that are being limited.
const limitedRank = 1 << 63

// rank orders cells by what is lost if they are given up.
func (c *cell) rank(now int64) uint64 {
	rank := uint64(c.used()) << 1
	if c.has(touched) {
		rank |= 1
	}
	if c.has(full) && c.current(c.at(now)) {
		rank |= limitedRank
	}
	return rank
}
