package quota_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/isekai-gateway/isekai/quota"
	"github.com/isekai-gateway/isekai/ratelimit"
	"github.com/isekai-gateway/isekai/store"
)

func TestOf(t *testing.T) {
	t.Parallel()
	rule := func(name string, limit int, window time.Duration, key string, cost int) quota.Rule {
		return quota.Rule{Rule: ratelimit.Rule{Name: name, Limit: limit, Window: window}, Key: ratelimit.ParseKey(key), Cost: cost}
	}
	const host = "{http.request.host}"
	tests := []struct {
		name      string
		rateLimit int
		limits    *store.Limits
		want      *quota.Policy
	}{
		{"nothing", 0, nil, nil},
		{"no limit among the limits", 0, &store.Limits{Window: 5, Key: host, Cost: 3, DryRun: true, BodyMax: 9}, nil},
		{"rate_limit alone", 5, nil, &quota.Policy{Scope: "route:7", Rules: []quota.Rule{rule("route", 5, time.Minute, "", 1)}}},
		{"rules alone", 0, &store.Limits{Rules: []store.LimitRule{{Name: "a", Limit: 3}}},
			&quota.Policy{Scope: "route:7", Rules: []quota.Rule{rule("a", 3, time.Minute, "", 1)}}},
		{"all", 5, &store.Limits{Window: 5, Key: host, Cost: 3, DryRun: true, Headers: "none", Rules: []store.LimitRule{
			{Name: "a", Limit: 3}, {Name: "b", Limit: 9, Window: 3600, Key: "{client_ip}", Cost: 9},
		}}, &quota.Policy{Scope: "route:7", DryRun: true, Headers: ratelimit.HeadersNone, Rules: []quota.Rule{
			rule("route", 5, 5*time.Second, host, 3), rule("a", 3, time.Minute, host, 3), rule("b", 9, time.Hour, "{http.vars.client_ip}", 9),
		}}},
	}
	for _, tt := range tests {
		row := store.NewRoute("/x", "http://10.0.0.1")
		row.ID, row.RateLimit, row.Limits = 7, tt.rateLimit, tt.limits
		var errs store.FieldErrors
		if quota.Validate(&errs, row); len(errs) > 0 {
			t.Errorf("%s: %v", tt.name, errs)
		}
		if diff := cmp.Diff(tt.want, quota.Of(row), cmp.Comparer(func(a, b ratelimit.Key) bool { return a == b })); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}
