package ratelimit_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/isekai-gateway/isekai/ratelimit"
)

func TestTakePeekReset(t *testing.T) {
	t.Parallel()
	limiter, clock := newLimiter(0)
	burst := ratelimit.Rule{Name: "burst", Limit: 6, Window: time.Second}
	daily := ratelimit.Rule{Name: "daily", Limit: 10, Window: time.Hour}
	free := ratelimit.Rule{Name: "free", Window: time.Hour}
	charges := func(client, tenant string, costs ...int) []ratelimit.Charge {
		return []ratelimit.Charge{
			{Rule: burst, Scope: "route:1", Key: client, Cost: costs[0]},
			{Rule: free, Scope: "route:1", Key: client, Cost: costs[0]},
			{Rule: daily, Scope: "route:1", Key: tenant, Cost: costs[1]},
		}
	}
	type left struct{ Burst, Daily int }
	peek := func(client, tenant string, want left) {
		t.Helper()
		asked := charges(client, tenant, 99, 99)
		got, err := limiter.Peek(t.Context(), nil, asked)
		if err != nil || len(got) != 3 || !got[1].Allowed {
			t.Fatalf("peeking: %v, %+v", err, got)
		}
		if diff := cmp.Diff(want, left{got[0].Remaining, got[2].Remaining}); diff != "" {
			t.Errorf("left of %s at %s (-want +got):\n%s", client, tenant, diff)
		}
		if asked[0].Cost != 99 {
			t.Error("peeking changed the caller's charges")
		}
	}
	take := func(client, tenant string, costs ...int) []bool {
		t.Helper()
		got, ok, err := limiter.Take(t.Context(), nil, charges(client, tenant, costs...))
		if err != nil || len(got) != 3 {
			t.Fatalf("taking: %v, %+v", err, got)
		}
		return []bool{ok, got[0].Allowed, got[2].Allowed}
	}
	steps := []struct {
		client, tenant string
		costs          []int
		want           []bool
		left           left
	}{
		{"a", "x", []int{5, 2}, []bool{true, true, true}, left{1, 8}},
		{"a", "x", []int{5, 2}, []bool{false, false, true}, left{1, 8}},
		{"b", "x", []int{5, 8}, []bool{true, true, true}, left{1, 0}}, // another client of the same tenant
		{"c", "x", []int{1, 1}, []bool{false, true, false}, left{6, 0}},
		{"a", "y", []int{1, 1}, []bool{true, true, true}, left{0, 9}},
	}
	for _, s := range steps {
		if diff := cmp.Diff(s.want, take(s.client, s.tenant, s.costs...)); diff != "" {
			t.Errorf("%+v: all, burst, daily (-want +got):\n%s", s, diff)
		}
		peek(s.client, s.tenant, s.left)
	}

	if err := limiter.Reset(t.Context(), charges("a", "x", 1, 1)); err != nil {
		t.Fatal(err)
	}
	peek("a", "x", left{6, 10})
	peek("b", "y", left{1, 9}) // those of others stay
	clock.Advance(time.Second)
	peek("b", "y", left{6, 9})
	if got := take("a", "x", 6, 10); !got[0] {
		t.Error("a key that was reset has not got its whole limit back")
	}
	peek("a", "x", left{0, 0})
}
