package stats

import (
	"slices"
	"time"
)

// Window is a span of time up to now.
type Window struct {
	Name string
	Span time.Duration

	slot time.Duration // its parts, so that it is up to one part longer
}

// Windows are those that statistics are kept for.
var Windows = []Window{
	{"1m", time.Minute, 10 * time.Second},
	{"5m", 5 * time.Minute, time.Minute},
	{"1h", time.Hour, 5 * time.Minute},
	{"24h", 24 * time.Hour, time.Hour},
}

// slot is what was counted in one part of a window.
type slot struct {
	start   time.Time // a multiple of the window's slot
	tallies Tallies
}

// timeline keeps tallies for each of Windows.
type timeline [4][]slot // oldest first

// add counts tallies of the time at in the windows from first to last. It returns the
// slots that this has brought to an end, by window.
func (l *timeline) add(at time.Time, tallies Tallies, first, last int) (ended [4]*slot) {
	for w := first; w <= last; w++ {
		window := Windows[w]
		at := at.Truncate(window.slot)
		slots := l[w]
		i, found := slices.BinarySearchFunc(slots, at, func(s slot, at time.Time) int { return s.start.Compare(at) })
		if !found {
			if i == len(slots) && i > 0 {
				before := slots[i-1]
				ended[w] = &before
			}
			slots = slices.Insert(slots, i, slot{at, make(Tallies, len(tallies))})
		}
		slots[i].tallies.add(tallies)
		l[w] = slots
	}
	return ended
}

// forget drops what is in no window any more.
func (l *timeline) forget(now time.Time) {
	for w, window := range Windows {
		l[w] = slices.DeleteFunc(l[w], func(s slot) bool { return !window.holds(s.start, now) })
	}
}

// holds says whether a slot that begins at start is a part of the window now.
func (w Window) holds(start, now time.Time) bool { return start.Add(w.slot).After(now.Add(-w.Span)) }

// start returns when the window began that ends now.
func (w Window) start(now time.Time) time.Time {
	return now.Add(-w.Span).Truncate(w.slot)
}

// sum adds up a window.
func (l *timeline) sum(w int, now time.Time, into Tallies) {
	for _, s := range l[w] {
		if Windows[w].holds(s.start, now) {
			into.add(s.tallies)
		}
	}
}

// earliest returns when the first part of a window begins that has anything, or now.
func (l *timeline) earliest(w int, now time.Time) time.Time {
	for _, s := range l[w] {
		if Windows[w].holds(s.start, now) {
			return s.start
		}
	}
	return now
}
