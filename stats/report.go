package stats

import "time"

// Report is what was counted in one of Windows.
type Report struct {
	Window Window

	// How long the window really is: up to one of its parts longer than its span, and
	// shorter while there is nothing older.
	Span time.Duration

	// What was counted, by route, None and Other among them.
	Routes Tallies
}

// Total adds up all of a report.
func (p Report) Total() Tally {
	var sum Tally
	for _, t := range p.Routes {
		sum.Add(t)
	}
	return sum
}

// Reports returns what was counted in each of Windows, by this process, and with all by
// the other replicas too, whose minutes come up to a minute and a half late.
func (r *Recorder) Reports(all bool) []Report {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	fresh := r.sinceRound(false)
	list := make([]Report, len(Windows))
	for w, window := range Windows {
		sum, began := make(Tallies), r.started
		r.own.sum(w, now, sum)
		sum.add(fresh)
		if all {
			began = r.addOthers(w, now, sum, began)
		}
		list[w] = Report{Window: window, Span: now.Sub(latest(window.start(now), began)), Routes: sum}
	}
	return list
}

// othersDelay is how old a minute of another replica is at most when it is known here,
// unless that replica has trouble with the store.
const othersDelay = 90 * time.Second

// addOthers adds what others have counted, and returns when the first of all began.
func (r *Recorder) addOthers(w int, now time.Time, sum Tallies, began time.Time) time.Time {
	if w < minuteWindow {
		// There is nothing finer than minutes of them: the last one that is sure to be
		// known stands for it.
		minute := now.Add(-othersDelay).Truncate(time.Minute)
		for _, s := range r.others[minuteWindow] {
			if s.start.Equal(minute) {
				sum.add(s.tallies)
			}
		}
		return began
	}
	r.others.sum(w, now, sum)
	if first := r.others.earliest(w, now); first.Before(began) {
		return first
	}
	return began
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
