package e2e_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// waitState waits until a target of the route's pool is in the state.
func (g *gateway) waitState(id int64, target int, state string) poolTargetAt {
	g.t.Helper()
	var last poolTargetAt
	eventually(g.t, servedWithin, fmt.Sprintf("target %d is %s", target, state), func() error {
		pools := g.pools("?route=" + itoa(int(id)))
		if len(pools) != 1 {
			return fmt.Errorf("there are %d pools", len(pools))
		}
		if last = pools[0].Targets[target]; last.State != state {
			return fmt.Errorf("it is %+v", last)
		}
		return nil
	})
	return last
}

// TestActiveHealth takes a target out that fails its checks, though no request
// comes, and brings it back.
func TestActiveHealth(t *testing.T) {
	t.Parallel()
	g := startGateway(t, settings{})
	a, b := newBackend(t, "a"), newBackend(t, "b")
	var asked atomic.Pointer[http.Request]
	var sick atomic.Bool
	checked := func(name string, sick *atomic.Bool) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			switch {
			case r.URL.Path != "/healthz":
				_, _ = w.Write([]byte(name))
			case sick.Load():
				w.WriteHeader(http.StatusInternalServerError)
			default:
				asked.Store(r)
				w.WriteHeader(http.StatusAccepted)
				_, _ = w.Write([]byte("status: fine"))
			}
		}
	}
	a.answer(checked("a", &sick))
	b.answer(checked("b", new(atomic.Bool)))
	u := poolOf(a, b)
	u.Policy = "first"
	u.Health = map[string]any{"active": map[string]any{
		"path": "/healthz?deep=1", "method": "POST", "host": "health.test", "headers": map[string]string{"X-Check": "yes"}, "body": "how are you",
		"interval": 0.05, "timeout": 10, "expect_status": 202, "expect_body": "status: f.ne", "passes": 2, "fails": 2,
	}}
	r := g.create(route{Path: "/x", TargetURL: a.url(), Upstream: u})

	// The checks come without any request.
	eventually(t, servedWithin, "the targets are asked", func() error {
		if asked.Load() == nil {
			return fmt.Errorf("not yet")
		}
		return nil
	})
	if req := asked.Load(); req.Method != "POST" || req.URL.RawQuery != "deep=1" || req.Host != "health.test" || req.Header.Get("X-Check") != "yes" || req.ContentLength != 11 {
		t.Errorf("the check is %s %s, Host %s, %v", req.Method, req.URL, req.Host, req.Header)
	}
	g.wantBody("/x", "a")

	sick.Store(true)
	if got := g.waitState(r.ID, 0, "unhealthy"); got.LastCheck == "" {
		t.Errorf("the sick target is %+v", got)
	}
	g.wantBody("/x", "b")
	// An edit of something else keeps what is known of the targets.
	g.patch(r.ID, map[string]any{"name": "edited"})
	g.waitState(r.ID, 0, "unhealthy")
	g.wantBody("/x", "b")
	sick.Store(false)
	g.waitState(r.ID, 0, "healthy")
	g.wantBody("/x", "a")

	// What has changed is told, once each time.
	for _, line := range []string{"upstream is unhealthy", "upstream is healthy again"} {
		eventually(t, servedWithin, "the log says "+line, func() error {
			if n := strings.Count(g.log.String(), `"msg":"`+line+`"`); n != 1 {
				return fmt.Errorf("%d times", n)
			}
			return nil
		})
	}
	metrics := string(g.call(http.MethodGet, "/metrics", nil).body)
	for _, line := range []string{
		fmt.Sprintf(`isekai_upstream_healthy{pool="%s",upstream="%s"} 1`, g.pool(r.ID).ID, a.address),
		fmt.Sprintf(`isekai_upstream_health_changes_total{pool="%s",upstream="%s"} 2`, g.pool(r.ID).ID, a.address),
	} {
		if !strings.Contains(metrics, line+"\n") {
			t.Errorf("the metrics lack %s", line)
		}
	}

	g.remove(r.ID)
	eventually(t, servedWithin, "a deleted route's pool is gone", func() error {
		if n := len(g.pools("")); n != 0 {
			return fmt.Errorf("%d pools", n)
		}
		return nil
	})
}

// TestPassiveHealth takes a target out whose answers fail.
func TestPassiveHealth(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		passive map[string]any
		fail    func(*backend)
	}{
		"status":        {map[string]any{"max_fails": 3, "fail_duration": 600, "unhealthy_status": []int{5}}, func(b *backend) { b.status(503) }},
		"latency":       {map[string]any{"max_fails": 2, "fail_duration": 600, "unhealthy_latency": 0.05}, slowBackend},
		"broken answer": {map[string]any{"max_fails": 3, "fail_duration": 600}, (*backend).abort},
		"refused":       {map[string]any{"max_fails": 3, "fail_duration": 600}, (*backend).stop},
		"defaults":      {map[string]any{}, (*backend).stop},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := startGateway(t, settings{})
			a, b := newBackend(t, "a"), newBackend(t, "b")
			c.fail(a)
			u, none := poolOf(a, b), 0
			u.Policy, u.Retries, u.Health = "first", &none, map[string]any{"passive": c.passive}
			r := g.create(route{Path: "/x", TargetURL: a.url(), Upstream: u})
			eventually(t, servedWithin, "the other target answers", func() error { return g.checkBody("/x", "b") })
			got := g.waitState(r.ID, 0, "unhealthy")
			if got.RecentFailures == 0 {
				t.Errorf("the target is %+v", got)
			}
			for range 5 {
				g.wantBody("/x", "b")
			}
		})
	}
}

func slowBackend(b *backend) {
	b.answer(func(w http.ResponseWriter, _ *http.Request) {
		time.Sleep(100 * time.Millisecond)
		_, _ = w.Write([]byte(b.name))
	})
}

// TestPassiveHealthRecovers forgets failures after a while.
func TestPassiveHealthRecovers(t *testing.T) {
	t.Parallel()
	g := startGateway(t, settings{})
	a, b := newBackend(t, "a"), newBackend(t, "b")
	a.stop()
	u := poolOf(a, b)
	u.Policy, u.Health = "first", map[string]any{"passive": map[string]any{"max_fails": 1, "fail_duration": 0.5}}
	g.create(route{Path: "/x", TargetURL: a.url(), Upstream: u})
	g.wantBody("/x", "b") // by a retry
	a.start()
	g.waitBody("/x", "a")
}

// TestVerdictsAreApart has two routes with different checks on one address: what
// one finds is not the other's.
func TestVerdictsAreApart(t *testing.T) {
	t.Parallel()
	g := startGateway(t, settings{})
	a, b := newBackend(t, "a"), newBackend(t, "b")
	a.answer(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/sick" {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_, _ = w.Write([]byte("a"))
	})
	check := func(path string) map[string]any {
		return map[string]any{"active": map[string]any{"path": path, "interval": 0.05}}
	}
	pool := func(health map[string]any) *upstreamSettings {
		u, none := poolOf(a, b), 0
		u.Policy, u.Retries, u.Health = "first", &none, health
		return u
	}
	strict := g.create(route{Path: "/strict", TargetURL: a.url(), Upstream: pool(check("/sick"))})
	lax := g.create(route{Path: "/lax", TargetURL: a.url(), Upstream: pool(check("/fine"))})
	g.waitState(strict.ID, 0, "unhealthy")
	g.wantBody("/strict", "b")
	g.wantBody("/lax", "a")

	touchy := g.create(route{Path: "/sick", TargetURL: a.url(), Upstream: pool(map[string]any{"passive": map[string]any{"max_fails": 1, "fail_duration": 600, "unhealthy_status": []int{503}}})})
	calm := g.create(route{Path: "/calm", TargetURL: a.url(), Upstream: pool(map[string]any{"passive": map[string]any{"max_fails": 1, "fail_duration": 600}})})
	g.send(http.MethodGet, "/sick")
	g.waitState(touchy.ID, 0, "unhealthy")
	g.wantBody("/sick", "b")
	g.wantBody("/calm", "a")
	for _, id := range []int64{lax.ID, calm.ID} {
		if got := g.pool(id).Targets[0]; got.State != "healthy" {
			t.Errorf("the verdict of other checks is shared: %+v", got)
		}
	}
}
