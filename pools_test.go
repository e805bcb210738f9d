package isekai_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
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
