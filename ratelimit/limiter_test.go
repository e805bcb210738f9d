package ratelimit_test

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/isekai-gateway/isekai/ratelimit"
)

var perMinute = ratelimit.Rule{Name: "r", Limit: 10, Window: time.Minute}

func newLimiter(maxKeys int) (*ratelimit.Limiter, *clock) {
	clock := newClock()
	return ratelimit.New(ratelimit.Config{MaxKeys: maxKeys, Now: clock.Now}), clock
}

// spend asks n times for one unit and returns how many were admitted.
func spend(l *ratelimit.Limiter, rule ratelimit.Rule, scope, key string, n int) int {
	admitted := 0
	for range n {
		if l.Allow(rule, scope, key, 1).Allowed {
			admitted++
		}
	}
	return admitted
}

func TestDecision(t *testing.T) {
	t.Parallel()
	limiter, clock := newLimiter(0)
	steps := []struct {
		after time.Duration
		cost  int
		want  ratelimit.Decision
	}{
		{0, 0, ratelimit.Decision{Allowed: true, Limit: 10, Remaining: 10}},
		{0, 4, ratelimit.Decision{Allowed: true, Limit: 10, Remaining: 6, Reset: time.Minute}},
		{10 * time.Second, 5, ratelimit.Decision{Allowed: true, Limit: 10, Remaining: 1, Reset: 50 * time.Second}},
		{0, 2, ratelimit.Decision{Limit: 10, Remaining: 1, Reset: 50 * time.Second, RetryAfter: 50 * time.Second}},
		{0, 7, ratelimit.Decision{Limit: 10, Remaining: 1, Reset: 50 * time.Second, RetryAfter: time.Minute}},
		{0, 11, ratelimit.Decision{Limit: 10, Remaining: 1, Reset: 50 * time.Second, RetryAfter: time.Minute}},
		{0, 1, ratelimit.Decision{Allowed: true, Limit: 10, Reset: 50 * time.Second}},
		{50 * time.Second, 4, ratelimit.Decision{Allowed: true, Limit: 10, Reset: 10 * time.Second}},
		{2 * time.Minute, 0, ratelimit.Decision{Allowed: true, Limit: 10, Remaining: 10}},
	}
	for i, step := range steps {
		clock.Advance(step.after)
		if diff := cmp.Diff(step.want, roundUp(limiter.Allow(perMinute, "", "k", step.cost))); diff != "" {
			t.Errorf("step %d (-want +got):\n%s", i, diff)
		}
	}
}

// roundUp takes off the resolution of times.
func roundUp(d ratelimit.Decision) ratelimit.Decision {
	d.Reset = (d.Reset + time.Millisecond - 1).Truncate(time.Millisecond)
	d.RetryAfter = (d.RetryAfter + time.Millisecond - 1).Truncate(time.Millisecond)
	return d
}

func TestWhatIsCountedApart(t *testing.T) {
	t.Parallel()
	limiter, _ := newLimiter(0)
	spend(limiter, perMinute, "route:1", "k", 10)
	tests := []struct {
		name       string
		rule       ratelimit.Rule
		scope, key string
		want       int
	}{
		{"same", perMinute, "route:1", "k", 0},
		{"other key", perMinute, "route:1", "l", 10},
		{"other scope", perMinute, "route:2", "k", 10},
		{"scope and key joined differently", perMinute, "route:", "1k", 10},
		{"scope and key swapped", perMinute, "k", "route:1", 10},
		{"other rule", ratelimit.Rule{Name: "s", Limit: 10, Window: time.Minute}, "route:1", "k", 10},
		{"other window", ratelimit.Rule{Name: "r", Limit: 10, Window: time.Hour}, "route:1", "k", 10},
		{"raised limit keeps what was used", ratelimit.Rule{Name: "r", Limit: 15, Window: time.Minute}, "route:1", "k", 5},
		{"lowered limit keeps what was used", ratelimit.Rule{Name: "r", Limit: 5, Window: time.Minute}, "route:1", "k", 0},
		{"no limit", ratelimit.Rule{Name: "r", Window: time.Minute}, "route:1", "k", 20},
	}
	for _, test := range tests {
		if got := spend(limiter, test.rule, test.scope, test.key, 20); got != test.want {
			t.Errorf("%s: admitted %d, want %d", test.name, got, test.want)
		}
	}
}

func TestRuleValidate(t *testing.T) {
	t.Parallel()
	tests := []struct {
		rule ratelimit.Rule
		ok   bool
	}{
		{ratelimit.Rule{Limit: 1, Window: time.Second}, true},
		{ratelimit.Rule{Limit: ratelimit.MaxLimit, Window: ratelimit.MaxWindow}, true},
		{ratelimit.Rule{Limit: 0, Window: ratelimit.MinWindow}, true},
		{ratelimit.Rule{Limit: ratelimit.MaxLimit + 1, Window: time.Second}, false},
		{ratelimit.Rule{Limit: 1, Window: 0}, false},
		{ratelimit.Rule{Limit: 1, Window: ratelimit.MaxWindow + time.Second}, false},
		{ratelimit.Rule{Limit: 1, Window: time.Second + 1}, false},
	}
	limiter, _ := newLimiter(0)
	for _, test := range tests {
		if err := test.rule.Validate(); (err == nil) != test.ok {
			t.Errorf("%+v: %v", test.rule, err)
		}
		// What is out of range is taken as the nearest in range.
		if d := limiter.Allow(test.rule, "", fmt.Sprint(test.rule), 1); !d.Allowed {
			t.Errorf("%+v refuses its first request", test.rule)
		}
	}
}

// The promises of RetryAfter and Reset, on any traffic.
func TestRetryAfterAndReset(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		limiter, clock := newLimiter(0)
		rule := ratelimit.Rule{
			Name:   "r",
			Limit:  1 + rnd.IntN(60),
			Window: []time.Duration{time.Second, time.Minute, time.Hour, ratelimit.MaxWindow}[rnd.IntN(4)],
		}
		slack := rule.Window/1e8 + time.Nanosecond
		for range 300 {
			clock.Advance(time.Duration(rnd.ExpFloat64() * float64(rule.Window) / float64(1+rnd.IntN(2*rule.Limit))))
			cost := 1 + rnd.IntN(1+rule.Limit/4)
			d := limiter.Allow(rule, "", "k", cost)
			at := clock.Now()
			if d.Reset > 0 {
				clock.Set(at.Add(d.Reset))
				if got := limiter.Allow(rule, "", "k", 0); got.Remaining <= d.Remaining {
					t.Fatalf("seed %d: %+v, after Reset %+v", seed, d, got)
				}
			}
			if d.Allowed {
				continue
			}
			if d.RetryAfter <= 0 || d.RetryAfter > rule.Window {
				t.Fatalf("seed %d: RetryAfter %v of window %v", seed, d.RetryAfter, rule.Window)
			}
			if early := at.Add(d.RetryAfter - slack); early.After(clock.Now()) {
				clock.Set(early)
				if limiter.Allow(rule, "", "k", cost).Allowed {
					t.Fatalf("seed %d: admitted before RetryAfter %v", seed, d.RetryAfter)
				}
			}
			if late := at.Add(d.RetryAfter); late.After(clock.Now()) {
				clock.Set(late)
			}
			if got := limiter.Allow(rule, "", "k", cost); !got.Allowed {
				t.Fatalf("seed %d: %+v, then %+v", seed, d, got)
			}
		}
	}
}

func TestAllowAll(t *testing.T) {
	t.Parallel()
	limiter, _ := newLimiter(0)
	rules := []ratelimit.Rule{
		{Name: "second", Limit: 3, Window: time.Second},
		{Name: "none", Window: time.Second},
		{Name: "minute", Limit: 5, Window: time.Minute},
	}
	remaining := func(want ...int) {
		t.Helper()
		for i, rule := range rules {
			if got := limiter.Allow(rule, "s", "k", 0).Remaining; got != want[i] {
				t.Errorf("rule %s has %d left, want %d", rule.Name, got, want[i])
			}
		}
	}
	decisions, ok := limiter.AllowAll(nil, rules, "s", "k", 2)
	if !ok || len(decisions) != 3 || decisions[0].Remaining != 1 || !decisions[1].Allowed || decisions[2].Remaining != 3 {
		t.Errorf("first: %v %+v", ok, decisions)
	}
	decisions, ok = limiter.AllowAll(decisions[:0], rules, "s", "k", 2)
	if ok || decisions[0].Allowed || !decisions[1].Allowed || !decisions[2].Allowed {
		t.Errorf("refused by one: %v %+v", ok, decisions)
	}
	remaining(1, 0, 3)
	if _, ok := limiter.AllowAll(nil, rules[1:2], "s", "k", 1); !ok {
		t.Error("no limit refuses")
	}
	want := ratelimit.Stats{Keys: 2, Admitted: 1, Refused: 1}
	if diff := cmp.Diff(want, limiter.Stats()); diff != "" {
		t.Errorf("stats (-want +got):\n%s", diff)
	}
}

func TestNoAllocations(t *testing.T) {
	limiter, _ := newLimiter(0)
	rules := []ratelimit.Rule{perMinute, {Name: "hour", Limit: 1000, Window: time.Hour}}
	space := make([]ratelimit.Decision, 0, 2)
	got := testing.AllocsPerRun(100, func() {
		limiter.Allow(perMinute, "route:12", ratelimit.ClientKey("192.0.2.1"), 1)
		limiter.AllowAll(space, rules, "route:12", "192.0.2.1", 1)
	})
	if got != 0 {
		t.Errorf("%v allocations", got)
	}
}

func TestClockSteps(t *testing.T) {
	t.Parallel()
	const tick = 100 * time.Millisecond
	for _, step := range []time.Duration{-time.Hour, time.Hour, -30 * time.Second, 90 * time.Second} {
		for at := 2 * time.Minute; at < 3*time.Minute; at += 7 * time.Second {
			limiter, clock := newLimiter(0)
			own := &exactLog{limit: perMinute.Limit, window: perMinute.Window}
			var refusedSince time.Duration
			refused := false
			for passed := time.Duration(0); passed < 6*time.Minute; passed += tick {
				now := epoch.Add(passed)
				if passed >= at {
					now = now.Add(step)
				}
				clock.Set(now)
				if limiter.Allow(perMinute, "", "k", 1).Allowed {
					own.admitted = append(own.admitted, passed)
					refused = false
				} else if !refused {
					refused, refusedSince = true, passed
				}
				if got := own.in(passed); got > 2*perMinute.Limit {
					t.Fatalf("step %v at %v: %d in the window to %v", step, at, got, passed)
				}
				if refused && passed-refusedSince > perMinute.Window {
					t.Fatalf("step %v at %v: refused from %v to %v", step, at, refusedSince, passed)
				}
			}
		}
	}
}

// A flood of random keys, each used twice, while some clients are limited and
// others in the middle of their quota.
func TestFloodKeepsKeysInUse(t *testing.T) {
	t.Parallel()
	const maxKeys, clients = 20_000, 200
	limiter, clock := newLimiter(maxKeys)
	client := func(i int) string { return "client-" + strconv.Itoa(i) }
	for i := range clients {
		spend(limiter, perMinute, "", client(i), 3+i%10)
	}
	for i := range 10 * maxKeys {
		key := "flood-" + strconv.Itoa(i)
		spend(limiter, perMinute, "", key, 2)
		if i%1000 == 0 {
			clock.Advance(time.Millisecond)
		}
	}
	stats := limiter.Stats()
	if stats.Keys > maxKeys || stats.Keys < maxKeys*9/10 {
		t.Errorf("%d keys, want nearly %d", stats.Keys, maxKeys)
	}
	if stats.Evictions == 0 {
		t.Error("no evictions")
	}
	for i := range clients {
		used := min(3+i%10, 10)
		if got := spend(limiter, perMinute, "", client(i), 20); got != 10-used {
			t.Errorf("client %d of %d used: %d more", i, used, got)
		}
	}
}

// With a limit of 1 every key of a flood is being limited too. Those that ask
// again are preferred.
func TestFloodOfLimitedKeys(t *testing.T) {
	t.Parallel()
	const maxKeys = 2000
	limiter, _ := newLimiter(maxKeys)
	once := ratelimit.Rule{Name: "once", Limit: 1, Window: time.Minute}
	limiter.Allow(once, "", "client", 1)
	for i := range 10 * maxKeys {
		limiter.Allow(once, "", "flood-"+strconv.Itoa(i), 1)
		if i%20 == 0 && limiter.Allow(once, "", "client", 1).Allowed {
			t.Fatalf("the client was forgotten after %d keys", i)
		}
	}
	if got := limiter.Stats().Keys; got > maxKeys {
		t.Errorf("%d keys", got)
	}
}

func TestMemoryOfRandomKeys(t *testing.T) {
	const keys = 1_000_000
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	limiter, clock := newLimiter(keys)
	spend(limiter, perMinute, "", "limited", 20)
	spend(limiter, perMinute, "", "honest", 6)
	rnd := rand.New(rand.NewPCG(1, 2))
	var key [32]byte
	add := func(n int) {
		for range n {
			limiter.Allow(perMinute, "", string(strconv.AppendUint(key[:0], rnd.Uint64(), 16)), 1)
		}
	}
	add(keys)
	perKey := float64(heap()-before) / float64(limiter.Stats().Keys)
	t.Logf("%.1f bytes a key, %+v", perKey, limiter.Stats())
	if perKey > 100 {
		t.Errorf("%.1f bytes a key are above 100", perKey)
	}
	full := heap()
	add(keys)
	if after := heap(); after > full+full/10 {
		t.Errorf("heap grew from %d to %d when the limiter was full", full, after)
	}
	for key, want := range map[string]int{"limited": 0, "honest": 4} {
		if got := spend(limiter, perMinute, "", key, 20); got != want {
			t.Errorf("the %s client was admitted %d more requests, want %d", key, got, want)
		}
	}
	clock.Advance(time.Hour)
	limiter.Sweep()
	if got := limiter.Stats().Keys; got != 0 {
		t.Errorf("%d keys left by the sweep", got)
	}
	if after := heap(); after > before+10<<20 {
		t.Errorf("heap is %d after the sweep, %d before the keys", after, before)
	}
	runtime.KeepAlive(limiter)
}

func TestSweepKeepsWhatCounts(t *testing.T) {
	t.Parallel()
	limiter, clock := newLimiter(0)
	for i := range 1000 {
		spend(limiter, perMinute, "", strconv.Itoa(i), 1+i%10)
		clock.Advance(100 * time.Millisecond)
	}
	limiter.Sweep() // 100 s have passed, so the first 400 or so are idle
	if got := limiter.Stats().Keys; got < 590 || got > 610 {
		t.Errorf("%d keys left", got)
	}
	for i := 500; i < 1000; i++ {
		if got := limiter.Allow(perMinute, "", strconv.Itoa(i), 0).Remaining; got != 9-i%10 {
			t.Errorf("key %d has %d left", i, got)
		}
	}
}

func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	limiter := ratelimit.New(ratelimit.Config{MaxKeys: 5000, SweepInterval: time.Millisecond})
	limiter.Start()
	limiter.Start()
	defer limiter.Close()
	rules := []ratelimit.Rule{
		{Name: "a", Limit: 100, Window: time.Hour},
		{Name: "b", Limit: 150, Window: time.Hour},
		{Name: "c", Limit: 1000, Window: time.Hour},
	}
	var admitted [5]atomic.Int64
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			mine := append(rules[worker%3:len(rules):len(rules)], rules[:worker%3]...)
			for i := range 2000 {
				key := i % len(admitted)
				if _, ok := limiter.AllowAll(nil, mine, "", strconv.Itoa(key), 1); ok {
					admitted[key].Add(1)
				}
				limiter.Allow(rules[0], "other", strconv.Itoa(worker*2000+i), 1)
				if i%500 == 0 {
					limiter.Stats()
				}
			}
		})
	}
	wg.Wait()
	for key := range admitted {
		if got := admitted[key].Load(); got != 100 {
			t.Errorf("key %d: %d admitted, want 100", key, got)
		}
	}
}

func TestCloseStops(t *testing.T) {
	t.Parallel()
	limiter := ratelimit.New(ratelimit.Config{})
	limiter.Start()
	limiter.Close()
	limiter.Close()
	limiter.Start()
	if !limiter.Allow(perMinute, "", "k", 1).Allowed {
		t.Error("closed limiter refuses")
	}
	ratelimit.New(ratelimit.Config{}).Close()
}
