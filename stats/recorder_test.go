package stats_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/isekai-gateway/isekai/stats"
)

// clock is a time that tests set.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func newClock() *clock { return &clock{at: time.Date(2026, 5, 6, 7, 0, 0, 0, time.UTC)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

func all(int64) bool { return true }

// hit is a request that is over.
var hit = &stats.Request{Method: "GET", Status: 200, Took: time.Millisecond, BytesIn: 1, BytesOut: 10}

// requests says how many requests of a route are in each of the windows.
func requests(r *stats.Recorder, everywhere bool, id int64) string {
	text := ""
	for _, report := range r.Reports(everywhere) {
		n := uint64(0)
		if t := report.Routes[id]; t != nil {
			n = t.Requests
		}
		text += fmt.Sprint(" ", n)
	}
	return text
}

// run lets time pass in rounds, and returns the periods that have ended.
func run(r *stats.Recorder, c *clock, d time.Duration) []stats.Period {
	var periods []stats.Period
	for range d / (10 * time.Second) {
		c.advance(10 * time.Second)
		periods = append(periods, r.Round(all)...)
	}
	return periods
}

func TestWindows(t *testing.T) {
	t.Parallel()
	c := newClock()
	r := stats.NewRecorder(stats.Config{Now: c.now})
	r.Observe(1, hit)
	for _, step := range []struct {
		wait time.Duration
		want string
	}{
		{0, " 1 1 1 1"}, {10 * time.Second, " 1 1 1 1"}, {50 * time.Second, " 1 1 1 1"}, {10 * time.Second, " 0 1 1 1"},
		{3 * time.Minute, " 0 1 1 1"}, {2 * time.Minute, " 0 0 1 1"}, {54 * time.Minute, " 0 0 1 1"}, {5 * time.Minute, " 0 0 0 1"},
		{22 * time.Hour, " 0 0 0 1"}, {2 * time.Hour, " 0 0 0 0"},
	} {
		run(r, c, step.wait)
		if got := requests(r, false, 1); got != step.want {
			t.Errorf("at %s: %s, want %s", c.now().Format(time.TimeOnly), got, step.want)
		}
	}
	if at := r.LastHit(1); !at.Equal(newClock().at) {
		t.Errorf("last hit at %v", at)
	}
}

func TestReport(t *testing.T) {
	t.Parallel()
	c := newClock()
	r := stats.NewRecorder(stats.Config{Now: c.now})
	run(r, c, 30*time.Second)
	for range 4 {
		r.Observe(1, hit)
	}
	r.Observe(1, &stats.Request{Method: "GET", Status: 499, Took: time.Second})
	r.Observe(2, &stats.Request{Method: "GET", Status: 502, Took: time.Second})
	r.Observe(stats.None, &stats.Request{Method: "GET", Status: 404, Took: time.Second})
	c.advance(5 * time.Second)
	minute := r.Reports(false)[0]
	total := minute.Total()
	got := []any{minute.Span, total.Requests, total.ClientErrors, total.ServerErrors, total.BytesIn, total.BytesOut, total.Took}
	want := []any{35 * time.Second, uint64(7), uint64(2), uint64(1), uint64(4), uint64(40), 3*time.Second + 4*time.Millisecond}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	run(r, c, 2*time.Minute)
	c.advance(7 * time.Second)
	// A window is made of whole parts.
	if span := r.Reports(false)[0].Span; span != 62*time.Second {
		t.Errorf("the minute is %v", span)
	}
}

func TestMaxSeries(t *testing.T) {
	t.Parallel()
	c := newClock()
	r := stats.NewRecorder(stats.Config{MaxSeries: 2, Now: c.now})
	series := func() map[int64]uint64 {
		counts := make(map[int64]uint64)
		for _, s := range r.Series() {
			counts[s.Route] = s.Requests.Snapshot().Count
		}
		return counts
	}
	for id := int64(1); id <= 4; id++ {
		for range id {
			r.Observe(id, hit)
		}
	}
	want := map[int64]uint64{stats.None: 0, 1: 1, 2: 2, stats.Other: 7}
	if diff := cmp.Diff(want, series()); diff != "" {
		t.Error(diff)
	}
	if got := requests(r, false, stats.Other); got != " 7 7 7 7" {
		t.Errorf("other routes: %s", got)
	}
	if r.LastHit(4).IsZero() {
		t.Error("a route that is not counted apart has no last hit")
	}

	// Route 1 goes on, nobody asks for 2: the busiest of the others takes its place.
	for range 8 {
		r.Observe(1, hit)
		r.Observe(3, hit)
		r.Observe(4, hit)
		r.Observe(4, hit)
		run(r, c, 10*time.Second)
	}
	r.Observe(4, hit)
	got := series()
	if got[1] != 9 || got[4] == 0 || got[3] != 0 {
		t.Errorf("series %v", got)
	}
	if _, ok := got[2]; ok {
		t.Errorf("the idle route is still there: %v", got)
	}
	// What was counted while it had a series is not lost.
	if got := requests(r, false, 2); got != " 0 2 2 2" {
		t.Errorf("the idle route: %s", got)
	}

	// A route that is deleted leaves its place at once.
	c.advance(10 * time.Second)
	r.Round(func(id int64) bool { return id != 1 })
	if _, ok := series()[1]; ok || !r.LastHit(1).IsZero() {
		t.Error("a deleted route is still there")
	}
	r.Observe(5, hit)
	if series()[5] != 1 {
		t.Errorf("a new route got no place: %v", series())
	}
}

func TestCodes(t *testing.T) {
	t.Parallel()
	r := stats.NewRecorder(stats.Config{})
	observe := func(method string, status int) {
		r.Observe(1, &stats.Request{Method: method, Status: status, Took: time.Millisecond})
	}
	observe("GET", 200)
	observe("GET", 200)
	observe("BREW", 418)
	observe("STEEP", 418)
	for status := 100; status < 400; status++ {
		observe("POST", status)
	}
	counts, total := make(map[string]uint64), uint64(0)
	for _, s := range r.Series() {
		for _, code := range s.Codes() {
			counts[fmt.Sprint(code.Method, " ", code.Status)] = code.Count
			total += code.Count
		}
	}
	if counts["GET 200"] != 2 || counts["_OTHER 418"] != 2 || counts["POST 101"] != 1 || counts["POST 0"] != 202 || total != 304 {
		t.Errorf("%d in all: %v", total, counts)
	}
}

func TestPeriods(t *testing.T) {
	t.Parallel()
	c := newClock()
	r := stats.NewRecorder(stats.Config{Now: c.now})
	c.advance(30 * time.Second)
	var periods []stats.Period
	for range 6 * 60 {
		r.Observe(1, hit)
		periods = append(periods, run(r, c, 10*time.Second)...)
	}
	last := r.Last()
	sums := map[time.Duration]uint64{}
	for _, p := range append(periods, last) {
		if p.Tallies[1] != nil {
			sums[p.Length] += p.Tallies[1].Requests
		}
	}
	// The hour has ended 30 seconds ago, with what came in its 59 and a half minutes.
	if diff := cmp.Diff(map[time.Duration]uint64{time.Minute: 360, time.Hour: 357}, sums); diff != "" {
		t.Error(diff)
	}
	if want := newClock().at.Add(time.Hour); !last.Start.Equal(want) || last.Length != time.Minute {
		t.Errorf("the last is %v from %v", last.Length, last.Start)
	}
}

// Another replica, or this one after a restart, knows what was counted.
func TestOthers(t *testing.T) {
	t.Parallel()
	c := newClock()
	first := stats.NewRecorder(stats.Config{Now: c.now})
	var periods []stats.Period
	for range 90 {
		first.Observe(1, hit)
		periods = append(periods, run(first, c, time.Minute)...)
	}
	for i := range periods {
		periods[i].Replica = "first"
	}
	second := stats.NewRecorder(stats.Config{Now: c.now})
	second.AddOthers(periods)
	// The hour that is over and its minutes are not counted twice; the last minute is
	// not over.
	if got := requests(second, true, 1); got != " 1 4 59 89" {
		t.Errorf("all: %s", got)
	}
	if got := requests(second, false, 1); got != " 0 0 0 0" {
		t.Errorf("own: %s", got)
	}
	if span := second.Reports(true)[3].Span; span != 90*time.Minute {
		t.Errorf("the day is %v", span)
	}
	if got, want := second.LastHit(1), c.now().Add(-2*time.Minute); !got.Equal(want) {
		t.Errorf("last hit at %v, want %v", got, want)
	}

	second.Observe(2, hit)
	more := run(first, c, 10*time.Second)
	second.AddOthers(more)
	if got := requests(second, true, 1); got != " 1 5 60 90" {
		t.Errorf("a minute later: %s", got)
	}
	run(second, c, 26*time.Hour)
	if got := requests(second, true, 1); got != " 0 0 0 0" {
		t.Errorf("a day later: %s", got)
	}
}

func TestHits(t *testing.T) {
	t.Parallel()
	c := newClock()
	r := stats.NewRecorder(stats.Config{MaxSeries: 1, Now: c.now})
	began := c.now()
	r.AddHits(map[int64]time.Time{1: began.Add(-48 * time.Hour), 2: began.Add(-72 * time.Hour)})
	c.advance(time.Second)
	r.Observe(2, hit)
	r.AddHits(map[int64]time.Time{2: began}) // older than what is known
	if got, want := r.HitsSince(began), (map[int64]time.Time{2: began.Add(time.Second)}); !cmp.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if !r.LastHit(1).Equal(began.Add(-48*time.Hour)) || !r.LastHit(3).IsZero() {
		t.Errorf("last hits %v, %v", r.LastHit(1), r.LastHit(3))
	}
	// What was known from before takes no place; a route that is asked for does.
	r.Round(all)
	if n := len(r.Series()); n != 3 {
		t.Errorf("%d series, want those of none, other and one route", n)
	}
}
