// Package slide is what all shared backends have in common: how charges become
// counters on a server, and what the counters say.
//
// A counter has two numbers: what was charged in the current window of those that
// begin at multiples of its length since the Unix epoch, and in the one before. The
// latter counts by the part of its window that a window ending now still covers,
// rounded up. So no aligned window has more than the limit, whatever the traffic.
// That the window before was charged evenly is an assumption: after a burst at its
// end up to half the limit too much is admitted in a window across the edge, and
// after one at its beginning as much too little.
//
// Times are whole milliseconds, by the server's clock. Should it go back, time
// stands still for a counter, for up to a window; a counter from further ahead is
// forgotten.
package slide

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"math"
	"slices"
	"time"

	"github.com/isekai-gateway/isekai/ratelimit"
)

// Counter is one charge as a server sees it.
type Counter struct {
	Index  int    // of its decision among those of the call
	Tag    []byte // 16 bytes that counters of one scope and key have in common
	ID     []byte // 16 bytes that identify the counter
	Window int64  // ms
	Limit  int64
	Cost   int64
}

// Plan appends a decision to dst for every charge, and returns the counters of those
// that have a limit, in the order of their IDs, in which servers lock them. Without
// cost, all costs are 0.
//
// IDs are cut from SHA-256 of what identifies a counter, each part after its length,
// so that they are bounded and tell nothing of clients.
func Plan(dst []ratelimit.Decision, charges []ratelimit.Charge, cost bool) ([]ratelimit.Decision, []Counter) {
	first := len(dst)
	counters := make([]Counter, 0, len(charges))
	for i, c := range charges {
		dst = append(dst, ratelimit.Decision{Allowed: true})
		if c.Rule.Limit <= 0 {
			continue
		}
		window := min(max(c.Rule.Window, ratelimit.MinWindow), ratelimit.MaxWindow).Milliseconds()
		counter := Counter{
			Index:  first + i,
			Tag:    hash([]byte(c.Scope), []byte(c.Key)),
			Window: window,
			Limit:  int64(min(c.Rule.Limit, ratelimit.MaxLimit)),
		}
		counter.ID = hash(counter.Tag, []byte(c.Rule.Name), binary.BigEndian.AppendUint64(nil, uint64(window)))
		if cost {
			counter.Cost = int64(min(max(c.Cost, 0), math.MaxInt32))
		}
		counters = append(counters, counter)
	}
	slices.SortFunc(counters, func(a, b Counter) int { return bytes.Compare(a.ID, b.ID) })
	return dst, counters
}

func hash(parts ...[]byte) []byte {
	var text []byte
	for _, part := range parts {
		text = binary.BigEndian.AppendUint64(text, uint64(len(part)))
		text = append(text, part...)
	}
	sum := sha256.Sum256(text)
	return sum[:16]
}

// Reading is what a server says of a counter: its state before the charge, and
// whether the cost fits.
type Reading struct {
	Now      int64 // ms since the Unix epoch
	Previous int64
	Current  int64
	Fits     bool
}

// Decide returns the decision on c. The cost was charged if the whole call was
// allowed.
func (c Counter) Decide(r Reading, allowed bool) ratelimit.Decision {
	if allowed {
		r.Current += c.Cost
	}
	d := ratelimit.Decision{Allowed: r.Fits, Limit: int(c.Limit)}
	d.Remaining = int(max(c.Limit-r.used(c.Window), 0))
	if d.Remaining < d.Limit {
		d.Reset = r.wait(c.Window, c.Limit-int64(d.Remaining)-1)
	}
	if !r.Fits {
		// What can never fit waits until all is back.
		d.RetryAfter = r.wait(c.Window, c.Limit-min(c.Cost, c.Limit))
	}
	return d
}

// used returns how many units count.
func (r Reading) used(window int64) int64 {
	left := window - r.Now%window
	return r.Current + (r.Previous*left+window-1)/window
}

// wait returns how long it takes until at most room units count, at least 1 ms and
// at most two windows.
func (r Reading) wait(window, room int64) time.Duration {
	left := window - r.Now%window
	var ms int64
	switch {
	case r.Current > room:
		// Not before the next window, in which the current one counts by part.
		ms = left + window - room*window/r.Current
	case r.Previous > 0:
		ms = left - min((room-r.Current)*window/r.Previous, left)
	}
	return time.Duration(max(ms, 1)) * time.Millisecond
}
