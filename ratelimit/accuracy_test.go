package ratelimit_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/isekai-gateway/isekai/ratelimit"
)

const (
	accuracyLimit  = 100
	accuracyWindow = time.Minute
	accuracyTime   = 200 * accuracyWindow
)

// exactLog is the limiter that this one comes close to: the time of every
// admitted request, none of which counts after one window.
type exactLog struct {
	limit    int
	window   time.Duration
	admitted []time.Duration
}

func (l *exactLog) allow(at time.Duration) bool {
	if l.in(at) >= l.limit {
		return false
	}
	l.admitted = append(l.admitted, at)
	return true
}

// in returns how many were admitted in the window that ends at at.
func (l *exactLog) in(at time.Duration) int {
	i, _ := slices.BinarySearch(l.admitted, at-l.window+1)
	return len(l.admitted) - i
}

// bursts returns bursts of size requests, 5 ms apart, at random times with the
// given mean rate in limits per window.
func bursts(rnd *rand.Rand, size int, rate float64) []time.Duration {
	var at []time.Duration
	gap := float64(size) * float64(accuracyWindow) / accuracyLimit / rate
	for t := 0.0; t < float64(accuracyTime); t += gap * rnd.ExpFloat64() {
		for i := range size {
			at = append(at, time.Duration(t)+time.Duration(i)*5*time.Millisecond)
		}
	}
	slices.Sort(at)
	return at
}

// perWindow returns the given offsets in every nth window.
func perWindow(nth int, offsets ...time.Duration) []time.Duration {
	var at []time.Duration
	for w := time.Duration(1); w*accuracyWindow < accuracyTime; w += time.Duration(nth) {
		for _, offset := range offsets {
			at = append(at, w*accuracyWindow+offset)
		}
	}
	return at
}

func spread(n int, from, to time.Duration) []time.Duration {
	at := make([]time.Duration, n)
	for i := range at {
		at[i] = from + time.Duration(i)*(to-from)/time.Duration(n)
	}
	return at
}

// traffic is when requests come, and what each of them costs. Where that is more than
// one unit, the limit is higher too, so that as many requests are within it.
type traffic struct {
	name string
	at   []time.Duration
	cost int
}

// The bar is 2 % of what an exact log admits.
func TestErrorAgainstExactLog(t *testing.T) {
	t.Parallel()
	const w = accuracyWindow
	tests := []traffic{
		{"limit before and after each edge", perWindow(1, spread(200, -time.Second, time.Second)...), 1},
		{"limit before an edge, steady after it", perWindow(2, append(spread(100, -time.Second, 0), spread(100, 0, w/2)...)...), 1},
		{"limit before an edge, steady two windows", perWindow(3, append(spread(100, -time.Second, 0), spread(300, 0, 2*w-time.Second)...)...), 1},
		{"trickle, then a burst before the edge", perWindow(1, append(spread(10, 0, 50*time.Second), spread(90, 59*time.Second, w)...)...), 1},
	}
	for _, rate := range []float64{0.5, 0.9, 1, 1.1, 1.5, 3, 10} {
		rnd := rand.New(rand.NewPCG(1, 2))
		step := time.Duration(float64(w) / accuracyLimit / rate)
		tests = append(tests,
			traffic{fmt.Sprintf("steady, %g of the limit", rate), spread(int(accuracyTime/step), 0, accuracyTime), 1},
			traffic{fmt.Sprintf("random, %g of the limit", rate), bursts(rnd, 1, rate), 1},
			traffic{fmt.Sprintf("bursts of 5, %g of the limit", rate), bursts(rnd, 5, rate), 1},
			traffic{fmt.Sprintf("bursts of 20, %g of the limit", rate), bursts(rnd, 20, rate), 1},
			traffic{fmt.Sprintf("bursts of the limit, %g of it", rate), bursts(rnd, accuracyLimit, rate), 1},
		)
	}
	for _, test := range slices.Clone(tests) {
		if len(test.at) <= 2*accuracyLimit*int(accuracyTime/w) { // the others take their time
			tests = append(tests, traffic{test.name + ", 7 units each", test.at, 7})
		}
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			clock := newClock()
			limiter := ratelimit.New(ratelimit.Config{Now: clock.Now})
			rule := ratelimit.Rule{Name: "r", Limit: accuracyLimit * test.cost, Window: accuracyWindow}
			exact := &exactLog{limit: accuracyLimit, window: accuracyWindow}
			own := &exactLog{limit: accuracyLimit, window: accuracyWindow}
			aligned, excess := map[time.Duration]int{}, 0
			for _, at := range test.at {
				exact.allow(at)
				clock.Set(epoch.Add(at))
				if limiter.Allow(rule, "", "k", test.cost).Allowed {
					own.admitted = append(own.admitted, at)
					excess = max(excess, own.in(at)-accuracyLimit)
					window := at.Truncate(accuracyWindow)
					if aligned[window]++; aligned[window] > accuracyLimit {
						t.Fatalf("more than %d admitted in the window at %v", accuracyLimit, window)
					}
				}
			}
			off := float64(len(own.admitted))/float64(len(exact.admitted)) - 1
			t.Logf("offered %d, exact log %d, admitted %d: error %+.2f %%; most in any window %+d",
				len(test.at), len(exact.admitted), len(own.admitted), 100*off, excess)
			if math.Abs(off) > 0.02 {
				t.Errorf("error %+.2f %% is above 2 %%", 100*off)
			}
			if excess > accuracyLimit {
				t.Errorf("a window admitted %d above the limit", excess)
			}
		})
	}
}
