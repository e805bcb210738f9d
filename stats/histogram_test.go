package stats_test

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/isekai-gateway/isekai/stats"
)

func TestBuckets(t *testing.T) {
	t.Parallel()
	for _, d := range []time.Duration{
		time.Microsecond * 8, 61 * time.Microsecond, time.Millisecond, 123456 * time.Microsecond, time.Second, 2 * time.Second, 700 * time.Second,
	} {
		var h stats.Histogram
		h.Observe(d)
		for i := range h.Snapshot().Buckets {
			if low, high := stats.Bound(i-1), stats.Bound(i); d.Seconds() <= low || d.Seconds() > high {
				t.Errorf("%v is in the bucket from %v to %v", d, low, high)
			}
		}
	}
	// What is out of range counts at the ends.
	var h stats.Histogram
	h.Observe(0)
	h.Observe(-time.Second)
	h.Observe(1000 * time.Hour)
	s := h.Snapshot()
	if s.Count != 3 || len(s.Buckets) != 2 || s.Classic[30] != 2 {
		t.Errorf("%+v", s)
	}
}

func TestClassicBuckets(t *testing.T) {
	t.Parallel()
	var h stats.Histogram
	for _, d := range []time.Duration{time.Millisecond, 1001 * time.Microsecond, time.Second, time.Minute} {
		h.Observe(d)
	}
	s := h.Snapshot()
	for bound, want := range map[float64]uint64{.001: 1, .0025: 2, .5: 2, 1: 3, 30: 3} {
		if got := s.Classic[bound]; got != want {
			t.Errorf("up to %v: %d, want %d", bound, got, want)
		}
	}
	if s.Count != 4 || s.Sum != 61*time.Second+2001*time.Microsecond {
		t.Errorf("%d in %v", s.Count, s.Sum)
	}
}

// Quantiles are close to the exact ones, however the durations are spread and however
// often tallies were added up.
func TestQuantile(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	clock := newClock()
	r := stats.NewRecorder(stats.Config{Now: clock.now})
	var exact []time.Duration
	for i := range 20_000 {
		d := time.Duration(math.Exp(random.NormFloat64()) * float64(20*time.Millisecond))
		exact = append(exact, d)
		r.Observe(1, &stats.Request{Method: "GET", Status: 200, Took: d})
		if i%1000 == 0 {
			r.Round(all)
			clock.advance(10 * time.Second)
		}
	}
	slices.Sort(exact)
	sum := r.Reports(false)[2].Total()
	for _, q := range []float64{.01, .5, .9, .99, .999} {
		want := exact[int(q*float64(len(exact)))]
		if got := sum.Quantile(q); math.Abs(got.Seconds()/want.Seconds()-1) > .09 {
			t.Errorf("quantile %v is %v, want %v", q, got, want)
		}
	}
	if sum.Quantile(0) > sum.Quantile(1) || new(stats.Tally).Quantile(.5) != 0 {
		t.Error("the ends are wrong")
	}
}

func TestTallyJSON(t *testing.T) {
	t.Parallel()
	r := stats.NewRecorder(stats.Config{})
	r.Observe(7, &stats.Request{Method: "GET", Status: 404, Took: time.Millisecond, BytesIn: 1, BytesOut: 2})
	r.Observe(7, &stats.Request{Method: "GET", Status: 500, Took: time.Second})
	want := r.Last()
	text, err := want.Document()
	if err != nil {
		t.Fatal(err)
	}
	got, err := stats.ParsePeriod("me", want.Length, want.Start, text)
	if err != nil {
		t.Fatal(err)
	}
	want.Replica = "me"
	if diff := cmp.Diff(want, got, cmp.Exporter(func(reflect.Type) bool { return true })); diff != "" {
		t.Error(diff)
	}
	for _, bad := range []string{``, `[]`, `{"routes":{"x":{}}}`, `{"routes":{"1":null}}`, `{"routes":{"1":{"n":-1}}}`, `{"routes":{"1":{"h":[1]}}}`, `{"routes":{"1":{"h":[9999,1]}}}`, `{"routes":{"1":{"h":[1,-1]}}}`} {
		if _, err := stats.ParsePeriod("", time.Minute, want.Start, []byte(bad)); err == nil {
			t.Errorf("%s was read", bad)
		}
	}
}

func FuzzParsePeriod(f *testing.F) {
	f.Add([]byte(`{"routes":{"1":{"n":2,"e4":1,"h":[-80,1,3,1]}}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := stats.ParsePeriod("r", time.Minute, time.Unix(0, 0), text)
		if err != nil {
			return
		}
		for _, tally := range p.Tallies {
			if d := tally.Quantile(.5); d < 0 {
				t.Errorf("a median of %v", d)
			}
		}
		if again, err := p.Document(); err != nil || !json.Valid(again) {
			t.Errorf("%v in %s", err, again)
		}
	})
}

func TestObserveAtOnce(t *testing.T) {
	t.Parallel()
	r := stats.NewRecorder(stats.Config{MaxSeries: 5})
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for n := range 1000 {
				r.Observe(int64(n%10), &stats.Request{Method: "GET", Status: 200 + i, Took: time.Millisecond})
				if n%100 == 0 {
					r.Round(all)
					r.Series()
				}
			}
		})
	}
	wg.Wait()
	if sum := r.Reports(false)[3].Total(); sum.Requests != 8000 {
		t.Errorf("%d requests, want 8000", sum.Requests)
	}
}

func BenchmarkObserve(b *testing.B) {
	r := stats.NewRecorder(stats.Config{})
	q := &stats.Request{Method: "GET", Status: 200, Took: 3 * time.Millisecond, Upstream: 2 * time.Millisecond, BytesOut: 128}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			r.Observe(1, q)
		}
	})
}
