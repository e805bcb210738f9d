package isekai_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/google/go-cmp/cmp"
)

// TestPoolsLeaveNothing has pools with all that runs in the background come and
// go, through edits, reloads and a reload that fails. TestMain looks for what is
// left of them.
func TestPoolsLeaveNothing(t *testing.T) {
	s, upstream := start(t, nil), newHolding(t)
	pool := func(path string) map[string]any {
		return map[string]any{
			"targets": []any{map[string]any{"url": upstream.URL, "weight": 2}, map[string]any{"url": "http://127.0.0.1:1"}},
			"policy":  "cookie",
			"retries": 1,
			"health": map[string]any{
				"active":  map[string]any{"path": path, "interval": 0.01},
				"passive": map[string]any{"max_fails": 1, "fail_duration": 3600},
			},
			"circuit_breaker": map[string]any{"min_requests": 1, "open_for": 3600},
		}
	}
	var pools struct{ Items []struct{ Routes []any } }
	count := func() int {
		if err := json.Unmarshal([]byte(s.do("GET", s.admin+"/api/upstreams", "").body), &pools); err != nil {
			t.Fatal(err)
		}
		return len(pools.Items)
	}
	ids := make([]int64, 3)
	for i := range ids {
		ids[i] = s.create(route{"path": fmt.Sprint("/", i), "target_url": upstream.URL, "upstream": pool(fmt.Sprint("/check", i))})
	}
	eventually(t, "the pools are there without requests", func() bool { return count() == 3 })
	for i := range ids {
		for range 5 {
			if res := s.get(fmt.Sprint("/", i)); res.StatusCode != http.StatusOK {
				t.Fatalf("status %d: %s", res.StatusCode, res.body)
			}
		}
	}
	if err := s.load(func(cfg map[string]any) { isekaiApp(cfg)["plugins"] = []any{"nope"} }); err == nil {
		t.Fatal("a bad configuration was loaded")
	}
	if count() != 3 {
		t.Errorf("after a failed reload there are %d pools", count())
	}
	if err := s.load(func(cfg map[string]any) { isekaiApp(cfg)["drain_timeout"] = "1m" }); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the pools are there after a reload", func() bool { return count() == 3 })
	// Two become one, one goes.
	s.write("PATCH", fmt.Sprintf("/api/routes/%d", ids[1]), map[string]any{"upstream": pool("/check0")})
	s.write("DELETE", fmt.Sprintf("/api/routes/%d", ids[2]), nil)
	eventually(t, "one pool is left", func() bool { return count() == 1 && len(pools.Items[0].Routes) == 2 })
	s.get("/1")
}

// TestChecksStopWithTheirRoute deletes a route whose targets are asked for their
// health: nobody asks on.
func TestChecksStopWithTheirRoute(t *testing.T) {
	s, upstream := start(t, nil), newHolding(t)
	var asked atomic.Int64
	handler := upstream.Config.Handler
	upstream.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/check" {
			asked.Add(1)
		}
		handler.ServeHTTP(w, r)
	})
	id := s.create(route{"path": "/x", "target_url": upstream.URL, "upstream": map[string]any{
		"health": map[string]any{"active": map[string]any{"path": "/check", "interval": 0.005}},
	}})
	eventually(t, "the target is asked", func() bool { return asked.Load() > 3 })
	s.write("PATCH", fmt.Sprintf("/api/routes/%d", id), map[string]any{"enabled": false})
	eventually(t, "nobody asks on", func() bool {
		before := asked.Load()
		s.get("/x") // takes longer than the time between two checks
		s.get("/x")
		s.do("GET", s.admin+"/api/status", "")
		return asked.Load() == before
	})
	s.write("PATCH", fmt.Sprintf("/api/routes/%d", id), map[string]any{"enabled": true})
	before := asked.Load()
	eventually(t, "the target is asked again", func() bool { return asked.Load() > before })
}

// eventLog is an event handler that keeps what it hears, for tests.
type eventLog struct{}

var heard struct {
	sync.Mutex
	events []string
}

func init() { caddy.RegisterModule(eventLog{}) }

// CaddyModule returns the Caddy module information.
func (eventLog) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "events.handlers.isekai_test", New: func() caddy.Module { return new(eventLog) }}
}

// Handle implements caddyevents.Handler.
func (eventLog) Handle(_ context.Context, e caddy.Event) error {
	heard.Lock()
	defer heard.Unlock()
	heard.events = append(heard.events, fmt.Sprint(e.Name(), " ", e.Data["upstream"]))
	return nil
}

// TestHealthEvents subscribes to changes of health: two routes share the pool, and
// each change is heard once.
func TestHealthEvents(t *testing.T) {
	s := start(t, func(cfg map[string]any) {
		cfg["apps"].(map[string]any)["events"] = map[string]any{"subscriptions": []any{map[string]any{
			"events": []string{"upstream_unhealthy", "upstream_healthy"}, "handlers": []any{map[string]any{"handler": "isekai_test"}},
		}}}
	})
	var sick atomic.Bool
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if sick.Load() {
			w.WriteHeader(http.StatusInternalServerError)
		}
	}))
	t.Cleanup(upstream.Close)
	for _, path := range []string{"/a", "/b"} {
		s.create(route{"path": path, "target_url": upstream.URL, "upstream": map[string]any{
			"health": map[string]any{"active": map[string]any{"interval": 0.01}},
		}})
	}
	address := strings.TrimPrefix(upstream.URL, "http://")
	var want []string
	for _, name := range []string{"upstream_unhealthy", "upstream_healthy", "upstream_unhealthy"} {
		sick.Store(name == "upstream_unhealthy")
		want = append(want, name+" "+address)
		eventually(t, name, func() bool {
			heard.Lock()
			defer heard.Unlock()
			return len(heard.events) >= len(want)
		})
	}
	heard.Lock()
	defer heard.Unlock()
	if diff := cmp.Diff(want, heard.events); diff != "" {
		t.Error(diff)
	}
}
