// Package backendtest is what every ratelimit.Backend must do, as tests.
package backendtest

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/isekai-gateway/isekai/ratelimit"
)

// Clock is the time that a backend under test goes by.
type Clock interface{ Set(time.Time) }

// Epoch is when every test begins, which is when windows of any length used here do.
var Epoch = time.Unix(1_800_000_000, 0).Truncate(24 * time.Hour)

var minute = ratelimit.Rule{Name: "minute", Limit: 10, Window: time.Minute}

func charge(rule ratelimit.Rule, key string, cost int) ratelimit.Charge {
	return ratelimit.Charge{Rule: rule, Scope: "route:1", Key: key, Cost: cost}
}

type test func(*testing.T, ratelimit.Backend, Clock)

// timeless is the tests that pass by any clock.
var timeless = map[string]test{
	"exact under concurrency": testConcurrent,
	"all or nothing":          testAllOrNothing,
	"all or nothing at once":  testAllOrNothingConcurrent,
	"cost":                    testCost,
	"peek and reset":          testPeekAndReset,
	"a change of the limit":   testLimitChange,
	"decisions are appended":  testAppend,
}

// timed is those that need one that they can set.
var timed = map[string]test{
	"the window passes":   testWindow,
	"keys are apart":      testApart,
	"the clock goes back": testClockBack,
}

// Run tests backends that open makes, each with no counters and at Epoch.
func Run(t *testing.T, open func(t *testing.T) (ratelimit.Backend, Clock)) {
	t.Helper()
	run(t, timeless, open)
	run(t, timed, open)
}

// RunAtAnyTime tests backends that open makes, each with no counters, as far as that
// can be done by a clock that nobody sets.
func RunAtAnyTime(t *testing.T, open func(t *testing.T) ratelimit.Backend) {
	t.Helper()
	run(t, timeless, func(t *testing.T) (ratelimit.Backend, Clock) { return open(t), nil })
}

func run(t *testing.T, tests map[string]test, open func(t *testing.T) (ratelimit.Backend, Clock)) {
	t.Helper()
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, clock := open(t)
			test(t, b, clock)
		})
	}
}

func take(t *testing.T, b ratelimit.Backend, charges ...ratelimit.Charge) ([]ratelimit.Decision, bool) {
	t.Helper()
	decisions, allowed, err := b.Take(t.Context(), nil, charges)
	if err != nil {
		t.Fatalf("taking: %v", err)
	}
	if len(decisions) != len(charges) {
		t.Fatalf("%d charges have %d decisions", len(charges), len(decisions))
	}
	all := !slices.ContainsFunc(decisions, func(d ratelimit.Decision) bool { return !d.Allowed })
	if all != allowed {
		t.Fatalf("allowed is %v with the decisions %+v", allowed, decisions)
	}
	return decisions, allowed
}

func remaining(t *testing.T, b ratelimit.Backend, charges ...ratelimit.Charge) []int {
	t.Helper()
	decisions, err := b.Peek(t.Context(), nil, charges)
	if err != nil {
		t.Fatalf("peeking: %v", err)
	}
	var left []int
	for _, d := range decisions {
		left = append(left, d.Remaining)
	}
	return left
}

func wantRemaining(t *testing.T, b ratelimit.Backend, want []int, charges ...ratelimit.Charge) {
	t.Helper()
	if diff := cmp.Diff(want, remaining(t, b, charges...)); diff != "" {
		t.Errorf("what remains (-want +got):\n%s", diff)
	}
}

func testConcurrent(t *testing.T, b ratelimit.Backend, _ Clock) {
	rule := ratelimit.Rule{Name: "r", Limit: 250, Window: time.Hour}
	var admitted atomic.Int64
	parallel(t, 1000, func(ctx context.Context, _ int) error {
		_, allowed, err := b.Take(ctx, nil, []ratelimit.Charge{charge(rule, "k", 1)})
		if allowed {
			admitted.Add(1)
		}
		return err
	})
	if got := admitted.Load(); got != 250 {
		t.Errorf("%d of 1000 were admitted, want 250", got)
	}
	wantRemaining(t, b, []int{0}, charge(rule, "k", 1))
}

func testAllOrNothingConcurrent(t *testing.T, b ratelimit.Backend, _ Clock) {
	// Charges in both orders would wait for each other in a circle if the order of
	// locks were theirs.
	one, other := ratelimit.Rule{Name: "one", Limit: 100, Window: time.Hour}, ratelimit.Rule{Name: "other", Limit: 60, Window: time.Minute}
	var admitted atomic.Int64
	parallel(t, 400, func(ctx context.Context, i int) error {
		charges := []ratelimit.Charge{charge(one, "k", 1), charge(other, "k", 1)}
		if i%2 == 0 {
			slices.Reverse(charges)
		}
		_, allowed, err := b.Take(ctx, nil, charges)
		if allowed {
			admitted.Add(1)
		}
		return err
	})
	if got := admitted.Load(); got != 60 {
		t.Errorf("%d were admitted, want 60", got)
	}
	wantRemaining(t, b, []int{40, 0}, charge(one, "k", 0), charge(other, "k", 0))
}

func parallel(t *testing.T, n int, fn func(ctx context.Context, i int) error) {
	t.Helper()
	errs := make(chan error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { errs <- fn(t.Context(), i) })
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func testAllOrNothing(t *testing.T, b ratelimit.Backend, _ Clock) {
	day := ratelimit.Rule{Name: "day", Limit: 3, Window: 24 * time.Hour}
	unlimited := ratelimit.Rule{Name: "none"}
	both := []ratelimit.Charge{charge(minute, "k", 1), charge(unlimited, "k", 1), charge(day, "k", 1)}
	for i := range 3 {
		decisions, allowed := take(t, b, both...)
		if !allowed || decisions[0].Remaining != 9-i || decisions[2].Remaining != 2-i || decisions[1] != (ratelimit.Decision{Allowed: true}) {
			t.Fatalf("take %d: %+v", i, decisions)
		}
	}
	decisions, allowed := take(t, b, both...)
	if allowed || !decisions[0].Allowed || decisions[2].Allowed {
		t.Errorf("over the day's limit: %v %+v", allowed, decisions)
	}
	if d := decisions[2]; d.RetryAfter <= 0 || d.Remaining != 0 || d.Limit != 3 || d.Reset <= 0 {
		t.Errorf("what refused says %+v", d)
	}
	if d := decisions[0]; d.RetryAfter != 0 || d.Remaining != 7 {
		t.Errorf("what would have admitted says %+v", d)
	}
	wantRemaining(t, b, []int{7, 0}, both[0], both[2])
	// Another scope and key in the same call.
	wide := ratelimit.Charge{Rule: minute, Scope: "consumer:1", Key: "c", Cost: 1}
	if _, allowed := take(t, b, wide, both[2]); allowed {
		t.Error("a call over one of two scopes' limits is admitted")
	}
	wantRemaining(t, b, []int{10, 0}, wide, both[2])
	if _, allowed := take(t, b, wide, both[0]); !allowed {
		t.Error("a call within two scopes' limits is refused")
	}
	wantRemaining(t, b, []int{9, 6}, wide, both[0])
	if decisions, allowed := take(t, b); len(decisions) != 0 || !allowed {
		t.Error("a call without charges is refused")
	}
}

func testCost(t *testing.T, b ratelimit.Backend, _ Clock) {
	if d, allowed := take(t, b, charge(minute, "k", 7)); !allowed || d[0].Remaining != 3 {
		t.Errorf("7 of 10: %+v", d)
	}
	if d, allowed := take(t, b, charge(minute, "k", 4)); allowed || d[0].Remaining != 3 || d[0].RetryAfter <= 0 {
		t.Errorf("4 of 3: %+v", d)
	}
	if d, allowed := take(t, b, charge(minute, "k", 0)); !allowed || d[0].Remaining != 3 {
		t.Errorf("asking: %+v", d)
	}
	if d, allowed := take(t, b, charge(minute, "k", 3)); !allowed || d[0].Remaining != 0 {
		t.Errorf("3 of 3: %+v", d)
	}
	if d, allowed := take(t, b, charge(minute, "new", 11)); allowed || d[0].Remaining != 10 || d[0].RetryAfter <= 0 {
		t.Errorf("11 of 10: %+v", d)
	}
}

func testPeekAndReset(t *testing.T, b ratelimit.Backend, _ Clock) {
	c := charge(minute, "k", 4)
	take(t, b, c)
	for range 3 {
		wantRemaining(t, b, []int{6, 10}, c, charge(minute, "other", 5))
	}
	if err := b.Reset(t.Context(), []ratelimit.Charge{c, charge(minute, "never seen", 1)}); err != nil {
		t.Fatal(err)
	}
	wantRemaining(t, b, []int{10}, c)
	decisions, err := b.Peek(t.Context(), nil, []ratelimit.Charge{c})
	if err != nil || decisions[0] != (ratelimit.Decision{Allowed: true, Limit: 10, Remaining: 10}) {
		t.Errorf("after the reset: %+v, %v", decisions, err)
	}
}

func testLimitChange(t *testing.T, b ratelimit.Backend, _ Clock) {
	take(t, b, charge(minute, "k", 8))
	more, less := minute, minute
	more.Limit, less.Limit = 20, 5
	wantRemaining(t, b, []int{12}, charge(more, "k", 0))
	wantRemaining(t, b, []int{0}, charge(less, "k", 0))
	if d, allowed := take(t, b, charge(less, "k", 1)); allowed || d[0].RetryAfter <= 0 {
		t.Errorf("over the lower limit: %+v", d)
	}
	if _, allowed := take(t, b, charge(more, "k", 12)); !allowed {
		t.Error("within the higher limit: refused")
	}
}

func testWindow(t *testing.T, b ratelimit.Backend, clock Clock) {
	c := charge(minute, "k", 10)
	if _, allowed := take(t, b, c); !allowed {
		t.Fatal("the first is refused")
	}
	one := charge(minute, "k", 1)
	clock.Set(Epoch.Add(59_999 * time.Millisecond))
	d, allowed := take(t, b, one)
	if allowed {
		t.Fatal("one more in the same window is admitted")
	}
	// As soon as it says, and no sooner.
	clock.Set(Epoch.Add(59_999*time.Millisecond + d[0].RetryAfter - 2*time.Millisecond))
	if _, allowed := take(t, b, one); allowed {
		t.Error("before RetryAfter has passed it is admitted")
	}
	clock.Set(Epoch.Add(59_999*time.Millisecond + d[0].RetryAfter))
	if _, allowed := take(t, b, one); !allowed {
		t.Error("after RetryAfter it is refused")
	}
	clock.Set(Epoch.Add(4 * time.Minute))
	wantRemaining(t, b, []int{10}, c)
	if _, allowed := take(t, b, c); !allowed {
		t.Error("after all windows it is refused")
	}
}

func testApart(t *testing.T, b ratelimit.Backend, _ Clock) {
	var all []ratelimit.Charge
	for _, name := range []string{"a", "b"} {
		for _, window := range []time.Duration{time.Second, time.Minute} {
			for _, at := range [][2]string{{"route:1", "k"}, {"route:1", "k2"}, {"route:1k", ""}, {"", "route:1k"}} {
				all = append(all, ratelimit.Charge{Rule: ratelimit.Rule{Name: name, Limit: 100, Window: window}, Scope: at[0], Key: at[1]})
			}
		}
	}
	var want []int
	for i := range all {
		one := all[i]
		one.Cost = i + 1
		take(t, b, one)
		want = append(want, 100-one.Cost)
	}
	for i := range all {
		wantRemaining(t, b, want[i:i+1], all[i])
	}
	wantRemaining(t, b, want, all...)
}

func testClockBack(t *testing.T, b ratelimit.Backend, clock Clock) {
	clock.Set(Epoch.Add(30 * time.Second))
	take(t, b, charge(minute, "k", 10))
	clock.Set(Epoch.Add(-5 * time.Second))
	if _, allowed := take(t, b, charge(minute, "k", 1)); allowed {
		t.Error("a clock that goes back admits more")
	}
	clock.Set(Epoch.Add(3 * time.Minute))
	if _, allowed := take(t, b, charge(minute, "k", 10)); !allowed {
		t.Error("it never recovers")
	}
}

func testAppend(t *testing.T, b ratelimit.Backend, _ Clock) {
	before := []ratelimit.Decision{{Limit: 77}}
	decisions, _, err := b.Take(t.Context(), before, []ratelimit.Charge{charge(minute, "k", 1)})
	if err != nil || len(decisions) != 2 || decisions[0].Limit != 77 || decisions[1].Remaining != 9 {
		t.Errorf("taking gives %+v, %v", decisions, err)
	}
	decisions, err = b.Peek(t.Context(), before, []ratelimit.Charge{charge(minute, "k", 1)})
	if err != nil || len(decisions) != 2 || decisions[0].Limit != 77 || decisions[1].Remaining != 9 {
		t.Errorf("peeking gives %+v, %v", decisions, err)
	}
}
