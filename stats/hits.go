package stats

import "time"

// LastHit returns when a route was last asked for, here or elsewhere, to the second, or
// to the minute if it was elsewhere. The zero time means never.
func (r *Recorder) LastHit(id int64) time.Time {
	if known := r.route(id); known != nil {
		return known.last()
	}
	return time.Time{}
}

// HitsSince returns the routes that were asked for at since or later, with the time.
func (r *Recorder) HitsSince(since time.Time) map[int64]time.Time {
	hits := make(map[int64]time.Time)
	r.each(func(id int64, known *route) {
		if at := known.last(); !at.IsZero() && at.Unix() >= since.Unix() {
			hits[id] = at
		}
	})
	return hits
}

// AddHits tells when routes were last asked for elsewhere.
func (r *Recorder) AddHits(hits map[int64]time.Time) {
	for id, at := range hits {
		r.hit(id, at)
	}
}

// hit moves a route's last hit forward. The route takes no place among the series, since
// nobody has asked for it here.
func (r *Recorder) hit(id int64, at time.Time) {
	known := r.addRoute(id)
	for {
		was := known.lastHit.Load()
		if was >= at.Unix() || known.lastHit.CompareAndSwap(was, at.Unix()) {
			return
		}
	}
}

func (k *route) last() time.Time {
	if at := k.lastHit.Load(); at != 0 {
		return time.Unix(at, 0).UTC()
	}
	return time.Time{}
}
