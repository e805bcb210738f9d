package e2e_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
)

// TestLanesChooseOnce has targets that speak HTTP/2, which the fast lane leaves to the
// full one: each request takes one turn, and sets one cookie.
func TestLanesChooseOnce(t *testing.T) {
	t.Parallel()
	g := startGateway(t, settings{})
	var u upstreamSettings
	for _, name := range []string{"a", "b"} {
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, name, r.ProtoMajor) }))
		s.EnableHTTP2 = true
		s.StartTLS()
		t.Cleanup(s.Close)
		u.Targets = append(u.Targets, upstreamTarget{URL: s.URL})
	}
	u.TLS = &tlsSettings{InsecureSkipVerify: true}
	sticky := u
	u.Policy, sticky.Policy = "round_robin", "cookie"
	r := g.create(route{Path: "/turns", TargetURL: u.Targets[0].URL, Upstream: &u})
	g.create(route{Path: "/sticky", TargetURL: u.Targets[0].URL, Upstream: &sticky})
	answers := map[string]int{}
	for range 20 {
		answers[string(g.send(http.MethodGet, "/turns").body)]++
		if a := g.send(http.MethodGet, "/sticky"); a.status != http.StatusOK || len(a.header.Values("Set-Cookie")) != 1 {
			t.Errorf("the answer is %s with the cookies %q", a, a.header.Values("Set-Cookie"))
		}
	}
	if answers["a2"] != 10 || answers["b2"] != 10 {
		t.Errorf("answered have %v", answers)
	}
	if pool := g.pool(r.ID); pool.Requests != 20 || pool.FastLane != 0 || pool.Targets[0].InFlight+pool.Targets[1].InFlight != 0 {
		t.Errorf("the pool counts %+v", pool)
	}
}
