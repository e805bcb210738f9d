package stats

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// DefaultMaxSeries is how many routes are counted apart unless a Config says
// otherwise.
const DefaultMaxSeries = 1000

// idleRounds is for how many rounds a route must have had no request before another
// takes its place.
const idleRounds = 6

// Config sets up a Recorder. The zero value takes the defaults.
type Config struct {
	// The most routes that are counted apart, about 10 KB each. Default: 1,000.
	MaxSeries int

	// The clock. Default: time.Now.
	Now func() time.Time
}

// Recorder counts the requests of this process. All methods are safe for concurrent
// use. Make one with NewRecorder; its owner calls Round every ten seconds.
type Recorder struct {
	now       func() time.Time
	maxSeries int
	started   time.Time

	none, other *Series

	// The routes that were ever asked for. Those that are new wait in the second map
	// until a round makes them part of the first, which is never changed.
	routes atomic.Pointer[map[int64]*route]
	fresh  struct {
		sync.RWMutex
		routes map[int64]*route
	}

	tracked atomic.Int64 // routes with a series; changed under mu

	mu     sync.Mutex // of what is below
	own    timeline   // without what has come since the last round
	others timeline
}

// route is what is known of one route however many there are.
type route struct {
	series  atomic.Pointer[Series] // nil: counted under Other
	lastHit atomic.Int64           // Unix seconds; 0: known from nowhere
	hits    atomic.Uint32          // since the last round
	idle    int                    // rounds without a request
}

// NewRecorder returns a recorder that has counted nothing.
func NewRecorder(cfg Config) *Recorder {
	if cfg.MaxSeries <= 0 {
		cfg.MaxSeries = DefaultMaxSeries
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	r := &Recorder{
		now: cfg.Now, maxSeries: cfg.MaxSeries, started: cfg.Now(),
		none: &Series{Route: None, Began: cfg.Now()}, other: &Series{Route: Other, Began: cfg.Now()},
	}
	r.routes.Store(&map[int64]*route{})
	r.fresh.routes = make(map[int64]*route)
	return r
}

// Observe counts a request of a route, or of None.
func (r *Recorder) Observe(id int64, q *Request) {
	if id == None {
		r.none.observe(q)
		return
	}
	known := r.route(id)
	if known == nil || known.series.Load() == nil && int(r.tracked.Load()) < r.maxSeries {
		known = r.meet(id)
	}
	ended := q.Ended
	if ended.IsZero() {
		ended = r.now()
	}
	// Most requests come in the second of the one before: to look is cheaper.
	if at := ended.Unix(); known.lastHit.Load() != at {
		known.lastHit.Store(at)
	}
	known.hits.Add(1)
	series := known.series.Load()
	if series == nil {
		series = r.other
	}
	series.observe(q)
}

// route returns a route that was seen before, or nil.
func (r *Recorder) route(id int64) *route {
	if known, ok := (*r.routes.Load())[id]; ok {
		return known
	}
	r.fresh.RLock()
	defer r.fresh.RUnlock()
	return r.fresh.routes[id]
}

// meet returns a route that was not asked for before. It is counted apart as long as
// there is a place. A request does not wait for whoever reads reports: the next one of
// the route sees to it then.
func (r *Recorder) meet(id int64) *route {
	known := r.addRoute(id)
	if r.mu.TryLock() {
		r.track(id, known)
		r.mu.Unlock()
	}
	return known
}

// addRoute returns a route, which is added if it is not known.
func (r *Recorder) addRoute(id int64) *route {
	r.fresh.Lock()
	defer r.fresh.Unlock()
	known, ok := (*r.routes.Load())[id]
	if !ok {
		known, ok = r.fresh.routes[id]
	}
	if !ok {
		known = new(route)
		r.fresh.routes[id] = known
	}
	return known
}

// track gives a route a series if there is a place. The caller holds r.mu.
func (r *Recorder) track(id int64, known *route) {
	if known.series.Load() == nil && int(r.tracked.Load()) < r.maxSeries {
		r.tracked.Add(1)
		known.series.Store(&Series{Route: id, Began: r.now()})
	}
}

// untrack takes it away again.
func (r *Recorder) untrack(known *route) {
	if known.series.Swap(nil) != nil {
		r.tracked.Add(-1)
	}
}

// Series returns the series of None, Other, and all routes that are counted apart. One
// that a route has given up is gone, with its counts, and begins anew should the route
// get a place again, so that every counter only grows while it is there.
func (r *Recorder) Series() []*Series {
	list := []*Series{r.none, r.other}
	r.each(func(_ int64, known *route) {
		if s := known.series.Load(); s != nil {
			list = append(list, s)
		}
	})
	return list
}

// each calls fn for every route that was ever asked for.
func (r *Recorder) each(fn func(id int64, known *route)) {
	r.fresh.RLock()
	waiting := maps.Clone(r.fresh.routes)
	all := *r.routes.Load()
	r.fresh.RUnlock()
	for _, routes := range []map[int64]*route{all, waiting} {
		for id, known := range routes {
			fn(id, known)
		}
	}
}

// forget drops routes that are not there any more.
func (r *Recorder) forget(exists func(id int64) bool) {
	next := maps.Clone(*r.routes.Load())
	r.fresh.Lock()
	maps.Copy(next, r.fresh.routes)
	clear(r.fresh.routes)
	for id, known := range next {
		if !exists(id) {
			r.untrack(known)
			delete(next, id)
		}
	}
	r.routes.Store(&next)
	r.fresh.Unlock()
}

// Round moves what was counted since the last one into the windows, drops routes that do
// not exist any more, and gives the places of routes that nobody asks for to others
// that were asked for more often than there were places. It returns the periods that
// have ended since, for the store.
func (r *Recorder) Round(exists func(id int64) bool) []Period {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	tallies := r.sinceRound(true)
	ended := r.own.add(now.Add(-time.Millisecond), tallies, 0, lastWindow)
	r.own.forget(now)
	r.others.forget(now)
	r.forget(exists)
	r.swap()
	var periods []Period
	for _, w := range []int{minuteWindow, hourWindow} {
		if s := ended[w]; s != nil {
			periods = append(periods, Period{Length: Windows[w].slot, Start: s.start, Tallies: s.tallies})
		}
	}
	return periods
}

// sinceRound returns what was counted since the last round, and with take, begins
// the next. The caller holds r.mu.
func (r *Recorder) sinceRound(take bool) Tallies {
	tallies := make(Tallies)
	for _, s := range r.Series() {
		since, sum := s.fresh()
		if take {
			s.taken = sum
		}
		if since.Requests > 0 {
			tallies[s.Route] = since
		}
	}
	return tallies
}

// swap gives places to routes without one, the busiest first, from routes that have
// not been asked for in a while.
func (r *Recorder) swap() {
	type candidate struct {
		id   int64
		hits uint32
		*route
	}
	var idle, waiting []candidate
	for id, known := range *r.routes.Load() {
		c := candidate{id, known.hits.Swap(0), known}
		if c.hits > 0 {
			known.idle = 0
		} else {
			known.idle++
		}
		switch tracked := known.series.Load() != nil; {
		case tracked && known.idle >= idleRounds:
			idle = append(idle, c)
		case !tracked && c.hits > 0:
			waiting = append(waiting, c)
		}
	}
	slices.SortFunc(waiting, func(a, b candidate) int { return int(b.hits) - int(a.hits) })
	slices.SortFunc(idle, func(a, b candidate) int { return b.idle - a.idle })
	for _, c := range waiting {
		if int(r.tracked.Load()) >= r.maxSeries {
			if len(idle) == 0 {
				return
			}
			r.untrack(idle[0].route)
			idle = idle[1:]
		}
		r.track(c.id, c.route)
	}
}
