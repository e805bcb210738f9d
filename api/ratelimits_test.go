package api_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/isekai-gateway/isekai/api"
	"github.com/isekai-gateway/isekai/quota"
	"github.com/isekai-gateway/isekai/ratelimit"
)

// frozen is a limiter whose clock stands at the beginning of an aligned hour.
func frozen(c *api.Config) {
	now := time.Unix(1_800_000_000, 0).Truncate(24 * time.Hour)
	c.Limits = ratelimit.New(ratelimit.Config{Now: func() time.Time { return now }})
}

// spend charges n requests to all rules of a route, whose keys come out as key.
func spend(t *testing.T, limits ratelimit.Backend, n *node, id int64, key string, requests int) {
	t.Helper()
	row, _, err := n.Get(id)
	if err != nil {
		t.Fatal(err)
	}
	policy := quota.Of(row)
	for range requests {
		var charges []ratelimit.Charge
		for _, r := range policy.Rules {
			charges = append(charges, ratelimit.Charge{Rule: r.Rule, Scope: policy.Scope, Key: r.Key.Normal(key), Cost: r.Cost})
		}
		if _, ok, err := limits.Take(t.Context(), nil, charges); !ok || err != nil {
			t.Fatalf("spending: %v, %v", ok, err)
		}
	}
}

func ratelimits(key string, more ...string) string {
	return "/api/ratelimits?key=" + url.QueryEscape(key) + strings.Join(more, "")
}

func TestRateLimits(t *testing.T) {
	t.Parallel()
	var limits ratelimit.Backend
	n := newNode(t, frozen, func(c *api.Config) { limits = c.Limits })
	n.create(t, "/unlimited")
	ip := n.create(t, "/ip", `"name": "by address", "rate_limit": 10, "limits": {"window": 3600, "rules": [{"name": "day", "limit": 100, "window": 86400, "cost": 5}]}`).id()
	tenant := n.create(t, "/tenant", `"limits": {"key": "{http.request.header.X-Tenant}", "rules": [{"name": "burst", "limit": 3}]}`).id()
	n.create(t, "/unused", `"rate_limit": 5`)

	spend(t, limits, n, ip, "2001:db8::1", 3)
	spend(t, limits, n, ip, "192.0.2.1", 1)
	spend(t, limits, n, tenant, "2001:db8::1", 1)

	want := func(path string, items ...any) {
		t.Helper()
		got := n.do(t, "GET", path, "").want(200).object()["items"]
		if diff := cmp.Diff(append([]any{}, items...), got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", path, diff)
		}
	}
	state := func(route int64, rule string, limit, window, used, reset float64) object {
		o := object{"route": float64(route), "rule": rule, "limit": limit, "window": window, "used": used, "remaining": limit - used, "reset": reset}
		if route == ip {
			o["route_name"] = "by address"
		}
		return o
	}
	byAddress := []any{state(ip, "route", 10, 3600, 3, 3600), state(ip, "day", 100, 86_400, 15, 86_400)}
	burst := state(tenant, "burst", 3, 60, 1, 60)

	want(ratelimits("2001:db8::1"), append(byAddress, burst)...)
	// Any address of the /64 is the same client; a header is taken as it is.
	want(ratelimits("2001:db8::ffff"), byAddress...)
	want(ratelimits("2001:db8::/64"), byAddress...)
	want(ratelimits("2001:db8:0:1::1"))
	want(ratelimits("192.0.2.1"), state(ip, "route", 10, 3600, 1, 3600), state(ip, "day", 100, 86_400, 5, 86_400))
	want(ratelimits("::ffff:192.0.2.1"), state(ip, "route", 10, 3600, 1, 3600), state(ip, "day", 100, 86_400, 5, 86_400))
	want(ratelimits("2001:db8::1", fmt.Sprintf("&route=%d", tenant)), burst)
	want(ratelimits("nobody"))
	// Of one route, also what is not used is shown.
	want(ratelimits("nobody", fmt.Sprintf("&route=%d", tenant)), state(tenant, "burst", 3, 60, 0, 0))
	want(ratelimits("nobody", "&route=1"))

	// Looking changes nothing, and an edit of the limit keeps what is used.
	want(ratelimits("2001:db8::1"), append(byAddress, burst)...)
	n.do(t, "PATCH", pathOf(tenant), `{"limits": {"rules": [{"name": "burst", "limit": 9}]}}`).want(200)
	burst = state(tenant, "burst", 9, 60, 1, 60)
	want(ratelimits("2001:db8::1"), append(byAddress, burst)...)

	n.do(t, "DELETE", ratelimits("2001:db8::2", fmt.Sprintf("&route=%d", ip)), "").want(204)
	want(ratelimits("2001:db8::1"), burst)
	n.do(t, "DELETE", ratelimits("2001:db8::1"), "").want(204)
	want(ratelimits("2001:db8::1"))
	want(ratelimits("192.0.2.1"), state(ip, "route", 10, 3600, 1, 3600), state(ip, "day", 100, 86_400, 5, 86_400))
}

func TestRateLimitsRefused(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	id := n.create(t, "/a", `"rate_limit": 5`).id()
	n.create(t, "/b")
	for _, method := range []string{"GET", "DELETE"} {
		for query, location := range map[string]string{
			"":                                       "query.key",
			"?key=":                                  "query.key",
			"?key=" + strings.Repeat("k", 1025):      "query.key",
			"?key=a&route=0":                         "query.route",
			"?key=a&route=x":                         "query.route",
			"?key=a&rule=x":                          "query.rule",
			fmt.Sprintf("?key=a&route=%d&key=b", id): "query.key",
			"?key=" + strings.Repeat("k", 1<<14) + "": "query.key",
		} {
			a := n.do(t, method, "/api/ratelimits"+query, "").want(422)
			if got := a.locations(); len(got) != 1 || got[0] != location {
				t.Errorf("%s %.60s: the errors are at %v, want %s", method, query, got, location)
			}
		}
		n.do(t, method, "/api/ratelimits?key=a&route=99", "").want(404)
		n.do(t, method, "/api/ratelimits?key="+strings.Repeat("k", 1024), "").want(map[string]int{"GET": 200, "DELETE": 204}[method])
	}
}

func TestRateLimitsOfManyRoutes(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "routes.db")
	plainSQL(t, file, `INSERT INTO routes (path, target_url, rate_limit)
		WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)
		SELECT '/many/' || i, 'http://10.0.0.1', i FROM n`)
	n := nodeOn(t, "sqlite://"+file)
	n.create(t, "/unlimited")
	n.do(t, "GET", ratelimits("a"), "").want(200)
	n.create(t, "/one-too-many", `"limits": {"rules": [{"name": "x", "limit": 1}]}`)
	for _, method := range []string{"GET", "DELETE"} {
		a := n.do(t, method, ratelimits("a"), "").want(422)
		if got := a.locations(); len(got) != 1 || got[0] != "query.route" {
			t.Errorf("%s: the errors are at %v", method, got)
		}
	}
	n.do(t, "GET", ratelimits("a", "&route=1"), "").want(200)
}

// brokenBackend is a server of counters that can't be reached.
type brokenBackend struct{ ratelimit.Backend }

var errBroken = errors.New("dial tcp 10.0.0.9:6379: connection refused")

func (brokenBackend) Peek(context.Context, []ratelimit.Decision, []ratelimit.Charge) ([]ratelimit.Decision, error) {
	return nil, errBroken
}

func (brokenBackend) Reset(context.Context, []ratelimit.Charge) error { return errBroken }

func TestRateLimitsUnavailable(t *testing.T) {
	t.Parallel()
	n := newNode(t, func(c *api.Config) { c.Limits = brokenBackend{} })
	n.create(t, "/a", `"rate_limit": 5`)
	for _, method := range []string{http.MethodGet, http.MethodDelete} {
		a := n.do(t, method, ratelimits("a"), "").want(503)
		if a.header.Get("Retry-After") == "" || strings.Contains(string(a.text), "10.0.0.9") {
			t.Errorf("%s: %s with %v", method, a.text, a.header)
		}
	}
}
