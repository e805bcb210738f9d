package e2e_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
)

// errorLines returns the lines of the log at the levels warn and error, but for the
// access log's, by their text, status and route, once they contain what is waited for.
func (g *gateway) errorLines(wait string) []map[string]any {
	g.t.Helper()
	var list []map[string]any
	eventually(g.t, startTimeout, "the log has "+wait, func() error {
		if !strings.Contains(g.log.String(), wait) {
			return fmt.Errorf("it has not")
		}
		return nil
	})
	for text := range strings.Lines(g.log.String()) {
		var line map[string]any
		if json.Unmarshal([]byte(text), &line) != nil {
			continue
		}
		logger, _ := line["logger"].(string)
		if level := line["level"]; (level == "warn" || level == "error") && !strings.HasPrefix(logger, "http.log.access") && line["status"] != nil {
			list = append(list, line)
		}
	}
	return list
}

// flood sends requests at once from several goroutines, all of which must be
// answered with the status.
func (g *gateway) flood(n int, target string, status int, change ...func(*http.Request)) {
	g.t.Helper()
	var wait sync.WaitGroup
	for range 8 {
		wait.Go(func() {
			for range n / 8 {
				a, err := g.trySend(http.MethodGet, target, change...)
				if err != nil || a.status != status {
					g.t.Errorf("%s answers %s, %v", target, a, err)
					return
				}
			}
		})
	}
	wait.Wait()
}

// TestLogIsQuietUnderAttack floods the gateway with requests that it refuses, and an
// upstream that is dead.
func TestLogIsQuietUnderAttack(t *testing.T) {
	t.Parallel()
	for name, set := range map[string]settings{
		"by itself": {},
		// The site's own answers come in place of the gateway's, and its log is the same.
		"with handle_errors": {site: "handle_errors {\nrespond \"own\" {err.status_code}\n}\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := startGateway(t, set)
			g.create(route{Path: "/limited", TargetURL: textUpstream(t, "x"), Limits: map[string]any{"rules": []map[string]any{{"name": "own", "limit": 1, "window": 3600}}}})
			g.create(route{Path: "/asks", TargetURL: textUpstream(t, "x"), Auth: map[string]any{"any": []string{"api_key"}}})
			dead := newBackend(t, "dead")
			dead.stop()
			bad := g.create(route{Path: "/dead", TargetURL: dead.url()})
			g.create(route{Path: "/open", TargetURL: textUpstream(t, "x"), Plugins: plugins(`{"handler":"isekai_forward_auth","url":"` + dead.url() + `","on_error":"allow"}`)})
			g.wantBody("/limited", "x")

			before := strings.Count(g.log.String(), "\n")
			for target, status := range map[string]int{"/nowhere": 404, "/limited": 429, "/asks": 401, "/%00": 400} {
				g.flood(800, target, status)
			}
			if now := strings.Count(g.log.String(), "\n"); now != before {
				t.Errorf("a few hundred refusals each write %d lines", now-before)
			}
			g.flood(1600, "/nowhere", 404, header("X-Request-Id", "of-a-flood"))
			lines := g.errorLines("many requests are refused")
			if len(lines) != 1 || lines[0]["status"] != 404.0 || lines[0]["error"] != "no route matches the request" ||
				lines[0]["request_id"] != "of-a-flood" || lines[0]["client_ip"] != "127.0.0.1" {
				t.Errorf("a flood of refusals is logged as %v", lines)
			}

			g.create(route{Path: "/rehearsed", TargetURL: textUpstream(t, "x"), Limits: map[string]any{
				"dry_run": true, "rules": []map[string]any{{"name": "own", "limit": 1, "window": 3600}}}})
			g.flood(400, "/rehearsed", 200)
			if n := strings.Count(g.log.String(), `"msg":"rate limit exceeded"`); n == 0 || n > 40 {
				t.Errorf("400 requests over a limit that only reports write %d lines", n)
			}
			g.flood(400, "/open", 200)
			if n := strings.Count(g.log.String(), "without authorization"); n == 0 || n > 12 {
				t.Errorf("400 requests without authorization write %d lines", n)
			}
			g.flood(400, "/dead", 502)
			lines = g.errorLines("connection refused")[1:]
			if len(lines) == 0 || len(lines) > 12 {
				t.Fatalf("400 failures write %d lines", len(lines))
			}
			line := lines[0]
			if line["msg"] != "request failed" || line["level"] != "error" || line["route"] != float64(bad.ID) || line["path"] != "/dead" ||
				line["upstream"] != dead.address || !strings.Contains(fmt.Sprint(line["error"]), "connection refused") || line["request_id"] == nil {
				t.Errorf("a failure is logged as %v", line)
			}
			seen := make(map[any]bool)
			for _, line := range lines {
				if id := line["request_id"]; seen[id] {
					t.Errorf("the request %v is logged twice", id)
				} else {
					seen[id] = true
				}
			}
		})
	}
}
