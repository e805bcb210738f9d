package proxy

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/isekai-gateway/isekai/store"
)

func TestFailuresSlide(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFailures(&store.PassiveHealth{MaxFails: 3, FailDuration: 10})
		for i, step := range []struct {
			wait    time.Duration
			fail    bool
			suspect bool
			recent  int
		}{
			{0, true, false, 1},
			{4 * time.Second, true, false, 2},
			{4 * time.Second, true, true, 3},
			{1999 * time.Millisecond, false, true, 3},
			{2 * time.Millisecond, false, false, 2}, // the first one is too old
			{0, true, true, 3},
			{0, true, true, 3},                // more than are needed
			{7 * time.Second, false, true, 3}, // that of 8 s and those above
			{2 * time.Second, false, false, 2},
			{2 * time.Second, false, false, 0},
		} {
			time.Sleep(step.wait)
			if step.fail {
				f.add(time.Now())
			}
			if f.suspect() != step.suspect || f.recent() != step.recent {
				t.Errorf("step %d: suspect %v with %d failures, not %v with %d", i, f.suspect(), f.recent(), step.suspect, step.recent)
			}
		}
	})
}

func TestFailuresJudge(t *testing.T) {
	t.Parallel()
	f := newFailures(&store.PassiveHealth{UnhealthyStatus: []int{5, 429}, UnhealthyLatency: 1})
	for _, c := range []struct {
		status  int
		latency time.Duration
		recent  int
	}{
		{200, time.Millisecond, 0}, {404, time.Millisecond, 0}, {429, time.Millisecond, 1}, {200, time.Second, 2}, {503, 0, 3},
	} {
		if f.judge(c.status, c.latency); f.recent() != c.recent {
			t.Errorf("after %d in %s there are %d failures, not %d", c.status, c.latency, f.recent(), c.recent)
		}
	}
	var none *failures
	none.add(time.Now())
	none.judge(500, time.Hour)
	if none.suspect() || none.recent() != 0 {
		t.Error("a target without checks is suspected")
	}
}

// TestStatesShareWhatAddressesTell has pools with one address share its failures if
// they have the same checks, and its requests in any case, until all are gone.
func TestStatesShareWhatAddressesTell(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var states States
		targets := []poolTarget{{Address: "10.0.0.1:80"}}
		health := func(fails int) *store.Upstream {
			return &store.Upstream{Health: &store.HealthChecks{Passive: &store.PassiveHealth{MaxFails: fails}}}
		}
		a := states.acquire("a", targets, health(1))
		b := states.acquire("b", targets, health(1))
		c := states.acquire("c", targets, health(2))
		a.targets[0].failing.add(time.Now())
		a.targets[0].load.inFlight.Add(1)
		if !b.targets[0].failing.suspect() {
			t.Error("equal checks don't share their failures")
		}
		if c.targets[0].failing.recent() != 0 {
			t.Error("other checks share their failures")
		}
		if c.targets[0].load.inFlight.Load() != 1 {
			t.Error("an address's requests are not shared")
		}
		for _, state := range []*poolState{a, b, c} {
			states.release(state)
		}
		time.Sleep(stateLinger + time.Second)
		d := states.acquire("d", []poolTarget{{Address: "10.0.0.2:80"}}, health(1))
		if len(states.pools) != 1 || len(states.loads) != 1 || len(states.failures) != 1 {
			t.Errorf("there are %d pools, %d loads, %d failures", len(states.pools), len(states.loads), len(states.failures))
		}
		states.release(d)
	})
}
