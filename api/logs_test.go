package api_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/isekai-gateway/isekai/store"
)

func TestLogs(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	at := time.Date(2026, 5, 6, 7, 8, 9, 123_456_000, time.UTC)
	var rows []*store.RequestLog
	for i, status := range []int{200, 404, 429, 503} {
		rows = append(rows, &store.RequestLog{
			Method: "GET", Path: fmt.Sprint("/", status), Status: status, CreatedAt: at.Add(time.Duration(i/2) * time.Second),
			Duration: time.Duration(i) * 1500 * time.Microsecond, RequestID: fmt.Sprint("r", i),
		})
	}
	if err := n.Store().InsertLogs(t.Context(), store.LogBatch{Writer: uuid.NewString(), Number: 1, Rows: rows}); err != nil {
		t.Fatal(err)
	}
	list := func(query string) (paths, next string) {
		page := n.do(t, "GET", "/api/logs"+query, "").want(200).object()
		for _, item := range page["items"].([]any) {
			paths += item.(object)["path"].(string)
		}
		next, _ = page["next"].(string)
		return paths, next
	}
	for query, want := range map[string]string{
		"":                           "/503/429/404/200",
		"?status=4xx":                "/429/404",
		"?status=404":                "/404",
		"?path=/2":                   "/200",
		"?request_id=r2":             "/429",
		"?min_latency=4":             "/503",
		"?from=2026-05-06T07:08:10Z": "/503/429",
		"?to=2026-05-06T07:08:10Z":   "/404/200",
		"?route=7":                   "",
		"?method=get":                "",
	} {
		if got, _ := list(query); got != want {
			t.Errorf("%s: %s, want %s", query, got, want)
		}
	}
	var all strings.Builder
	for next := ""; ; {
		page, cursor := list("?limit=1" + next)
		all.WriteString(page)
		if cursor == "" {
			break
		}
		next = "&cursor=" + cursor
	}
	if got := all.String(); got != "/503/429/404/200" {
		t.Errorf("pages: %s", got)
	}
	one := n.do(t, "GET", "/api/logs?limit=1", "").want(200).object()["items"].([]any)[0].(object)
	if one["duration_ms"] != 4.5 || one["time"] != "2026-05-06T07:08:10.123456Z" || one["status"] != 503.0 {
		t.Errorf("row %v", one)
	}
	for _, bad := range []string{"cursor=x", "status=9", "status=4x", "from=yesterday", "limit=0", "colour=red", "min_latency=-1"} {
		if got := n.do(t, "GET", "/api/logs?"+bad, "").status; got != 422 {
			t.Errorf("%s: %d", bad, got)
		}
	}
}

func TestExport(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	at := time.Date(2026, 5, 6, 7, 8, 9, 0, time.UTC)
	var rows []*store.RequestLog
	for i := range 2345 {
		rows = append(rows, &store.RequestLog{
			Method: "GET", Path: fmt.Sprint("/", i), Status: 200 + i%2, CreatedAt: at.Add(time.Duration(i/7) * time.Second),
			Headers: map[string]string{"Accept": "a\nb"},
		})
	}
	if err := n.Store().InsertLogs(t.Context(), store.LogBatch{Writer: uuid.NewString(), Number: 1, Rows: rows}); err != nil {
		t.Fatal(err)
	}
	export := func(query string) []string {
		t.Helper()
		got := n.do(t, "GET", "/api/logs/export"+query, "").want(200)
		if kind := got.header.Get("Content-Type"); kind != "application/x-ndjson" {
			t.Errorf("Content-Type %q", kind)
		}
		var paths []string
		for line := range strings.Lines(string(got.text)) {
			var row struct{ Path string }
			if err := json.Unmarshal([]byte(line), &row); err != nil {
				t.Fatalf("%v in %s", err, line)
			}
			paths = append(paths, row.Path)
		}
		return paths
	}
	paths := export("")
	if len(paths) != 2345 || paths[0] != "/2344" || paths[2344] != "/0" {
		t.Errorf("%d rows, from %s to %s", len(paths), paths[0], paths[len(paths)-1])
	}
	seen := make(map[string]bool)
	for _, path := range paths {
		if seen[path] {
			t.Errorf("%s is there twice", path)
		}
		seen[path] = true
	}
	for query, want := range map[string]int{
		"?status=201": 1172, "?limit=1500": 1500, "?limit=1000": 1000, "?limit=1": 1, "?path=/x": 0, "?from=2026-05-06T07:08:10Z&to=2026-05-06T07:08:11Z": 7,
	} {
		if got := len(export(query)); got != want {
			t.Errorf("%s: %d rows, want %d", query, got, want)
		}
	}
	for _, bad := range []string{"limit=-1", "cursor=x", "status=9"} {
		if got := n.do(t, "GET", "/api/logs/export?"+bad, "").status; got != 422 {
			t.Errorf("%s: %d", bad, got)
		}
	}
}
