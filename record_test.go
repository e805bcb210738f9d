package isekai_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// logged returns the rows of the request log, oldest first, once there are n.
func (s *server) logged(n int) []map[string]any {
	s.t.Helper()
	var rows []map[string]any
	eventually(s.t, "the requests are in the log", func() bool {
		res := s.do("GET", s.admin+"/api/logs", "")
		var page struct{ Items []map[string]any }
		if err := json.Unmarshal([]byte(res.body), &page); err != nil {
			s.t.Fatalf("%v in %s", err, res.body)
		}
		rows = page.Items
		return len(rows) >= n
	})
	for i, j := 0, len(rows)-1; i < j; i, j = i+1, j-1 {
		rows[i], rows[j] = rows[j], rows[i]
	}
	return rows
}

// quickLog makes the log write at once.
func quickLog(cfg map[string]any) {
	isekaiApp(cfg)["request_log"] = map[string]any{"flush_interval": "10ms"}
}

func TestRequestLog(t *testing.T) {
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, "hello")
	}))
	defer upstream.Close()
	s := start(t, quickLog)
	id := float64(s.create(route{"path": "/a/*", "target_url": upstream.URL, "method": "*", "rate_limit": 2}))
	s.create(route{"path": "/dead", "target_url": "http://127.0.0.1:1"})
	s.create(route{"path": "/quiet", "target_url": upstream.URL, "log": route{"off": true}})

	s.do("POST", s.site+"/a/b%20c?secret=1", "12345", "User-Agent", "tester", "X-Request-Id", "given")
	s.get("/quiet")
	s.get("/a/2")
	s.get("/a/limited")
	s.get("/nowhere?secret=1")
	s.get("/dead")
	rows := s.logged(5)
	if len(rows) != 5 {
		t.Fatalf("%d rows: %v", len(rows), rows)
	}
	for _, row := range rows {
		if row["client_ip"] != "127.0.0.1" || row["time"] == nil || row["duration_ms"].(float64) <= 0 || row["request_id"] == "" {
			t.Errorf("row %v", row)
		}
	}
	address := strings.TrimPrefix(upstream.URL, "http://")
	for i, want := range []map[string]any{
		{"route": id, "method": "POST", "path": "/a/b%20c", "status": 200.0, "bytes_in": 5.0, "bytes_out": 5.0,
			"user_agent": "tester", "request_id": "given", "upstream": address},
		{"route": id, "method": "GET", "path": "/a/2", "status": 200.0, "bytes_in": 0.0, "upstream": address},
		{"route": id, "path": "/a/limited", "status": 429.0, "upstream": nil, "error": "rate limit exceeded: route"},
		{"route": nil, "path": "/nowhere", "status": 404.0, "error": "no route matches the request"},
		{"path": "/dead", "status": 502.0, "upstream": "127.0.0.1:1"},
	} {
		for field, value := range want {
			if rows[i][field] != value {
				t.Errorf("row %d: %s is %v, want %v", i, field, rows[i][field], value)
			}
		}
	}
	if text := rows[4]["error"]; text == nil || strings.Contains(text.(string), ".go:") {
		t.Errorf("error %v", text)
	}
	metrics := s.do("GET", s.admin+"/metrics", "").body
	for _, want := range []string{"isekai_request_log_written_total 5", "isekai_request_log_dropped_total 0", "isekai_request_log_queued 0"} {
		if !strings.Contains(metrics, want) {
			t.Errorf("no %q in the metrics", want)
		}
	}
}

func TestRequestLogOfHeadersAndQuery(t *testing.T) {
	upstream := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer upstream.Close()
	s := start(t, func(cfg map[string]any) {
		isekaiApp(cfg)["request_log"] = map[string]any{"flush_interval": "10ms", "redact_headers": []string{"x-session"}, "redact_query": []string{"pin"}}
		isekaiApp(cfg)["auth"] = map[string]any{"api_key": map[string]any{"headers": []string{"X-Own-Key"}, "query": []string{"own_key"}}}
	})
	s.create(route{
		"path": "/a", "target_url": upstream.URL,
		"log":     route{"query": true, "headers": []string{"Referer", "x-env", "Authorization", "Cookie", "X-Session", "X-Own-Key", "X-Absent"}},
		"plugins": []any{route{"handler": "rewrite", "uri": "/changed?by=plugin"}, route{"handler": "headers", "request": route{"set": route{"X-Env": []string{"changed"}}}}},
	})
	s.create(route{"path": "/b", "target_url": upstream.URL})
	sent := []string{
		"Referer", "http://a.example/?x", "X-Env", "beta", "Authorization", "Bearer s3cret", "Cookie", "s=s3cret",
		"X-Session", "s3cret", "X-Own-Key", "s3cret",
	}
	s.do("GET", s.site+"/a?b=1&PIN=s3cret&own_key=s3cret&token=shown", "", sent...)
	s.do("GET", s.site+"/b?b=1", "", sent...)
	rows := s.logged(2)
	want := map[string]any{
		"Referer": "http://a.example/?x", "X-Env": "beta", "Authorization": "***", "Cookie": "***", "X-Session": "***", "X-Own-Key": "***",
	}
	if diff := cmp.Diff(want, rows[0]["headers"]); diff != "" {
		t.Error(diff)
	}
	if got := rows[0]["query"]; got != "b=1&PIN=***&own_key=***&token=shown" {
		t.Errorf("query %v", got)
	}
	if rows[1]["headers"] != nil || rows[1]["query"] != nil {
		t.Errorf("nobody asked for %v, %v", rows[1]["headers"], rows[1]["query"])
	}
	for _, bad := range []string{`{"headers": ["a b"]}`, `{"headers": [""]}`, `{"headers": ["` + strings.Repeat(`a","`, 32) + `a"]}`, `{"query": 1}`} {
		res := s.do("POST", s.admin+"/api/routes", `{"path":"/c","target_url":"http://10.0.0.1","log":`+bad+`}`, "Content-Type", "application/json")
		if res.StatusCode != 422 || !strings.Contains(res.body, "log.") {
			t.Errorf("%s: %d %s", bad, res.StatusCode, res.body)
		}
	}
}

func TestRequestLogOff(t *testing.T) {
	s := start(t, func(cfg map[string]any) {
		isekaiApp(cfg)["request_log"] = map[string]any{"off": true, "flush_interval": "10ms"}
	})
	s.get("/nowhere")
	if res := s.do("GET", s.admin+"/api/status", ""); !strings.Contains(res.body, `"request_log":{"queued":0,"capacity":65536,"written":0,"dropped":0`) {
		t.Errorf("status %s", res.body)
	}
	if rows := s.logged(0); len(rows) != 0 {
		t.Errorf("rows %v", rows)
	}
}

func TestRequestLogSurvivesReloads(t *testing.T) {
	s := start(t, func(cfg map[string]any) {
		isekaiApp(cfg)["request_log"] = map[string]any{"flush_interval": "1h"}
	})
	s.get("/before")
	// Another interval is another gateway: the old one writes what it has.
	if err := s.load(quickLog); err != nil {
		t.Fatal(err)
	}
	s.get("/after")
	var paths []string
	for _, row := range s.logged(2) {
		paths = append(paths, row["path"].(string))
	}
	if got := strings.Join(paths, " "); got != "/before /after" {
		t.Errorf("rows %s", got)
	}
}

func TestBadRequestLogSettings(t *testing.T) {
	s := start(t, nil)
	for name, bad := range map[string]map[string]any{
		"sample":    {"sample": 0},
		"retention": {"retention": -1},
		"queue":     {"queue": -1},
	} {
		err := s.load(func(cfg map[string]any) { isekaiApp(cfg)["request_log"] = bad })
		if err == nil || !strings.Contains(err.Error(), "request_log."+name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
