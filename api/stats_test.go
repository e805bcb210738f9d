package api_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/isekai-gateway/isekai/stats"
)

func TestStats(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	var ids []int64
	for i := range 3 {
		created := n.do(t, "POST", "/api/routes", fmt.Sprintf(`{"name":"r%d","path":"/%d","target_url":"http://10.0.0.1"}`, i, i)).want(201).object()
		ids = append(ids, int64(created["id"].(float64)))
	}
	observe := func(id int64, status, times int) {
		for range times {
			n.Traffic.Observe(id, &stats.Request{Method: "GET", Status: status, Took: 100 * time.Millisecond, BytesOut: 10})
		}
	}
	observe(ids[0], 200, 1)
	observe(ids[1], 200, 7)
	observe(ids[1], 502, 2)
	observe(stats.None, 404, 4)
	get := func(query string) object { return n.do(t, "GET", "/api/stats"+query, "").want(200).object() }

	page := get("")
	hour := at(page, "total", "1h")
	for field, want := range map[string]float64{"requests": 14, "client_errors": 4, "server_errors": 2, "bytes_out": 140, "mean_ms": 100} {
		if hour[field] != want {
			t.Errorf("%s is %v, want %v", field, hour[field], want)
		}
	}
	for _, field := range []string{"p50_ms", "p90_ms", "p99_ms"} {
		if got := hour[field].(float64); got < 91 || got > 109 {
			t.Errorf("%s is %v", field, got)
		}
	}
	if hour["seconds"].(float64) <= 0 || hour["rate"].(float64) <= 0 {
		t.Errorf("hour %v", hour)
	}
	if page["routes"] != 3.0 || page["never_hit"] != 1.0 || at(page, "unmatched", "1m")["requests"] != 4.0 || at(page, "other", "24h")["requests"] != 0.0 {
		t.Errorf("page %v", page)
	}

	names := func(page object) (text string) {
		for _, item := range page["items"].([]any) {
			item := item.(object)
			text += item["name"].(string)
			if (item["last_hit"] == nil) != (item["windows"] == nil) {
				t.Errorf("route %v", item)
			}
		}
		return text
	}
	for query, want := range map[string]string{
		"": "r1r0r2", "?never_hit=true": "r2", "?never_hit=false": "r1r0", fmt.Sprint("?route=", ids[0]): "r0", "?route=99": "",
		"?window=1m&limit=1": "r1", "?node=true": "r1r0r2",
	} {
		if got := names(get(query)); got != want {
			t.Errorf("%s: %s, want %s", query, got, want)
		}
	}
	first := get("?limit=2")
	if rest := names(get("?limit=2&cursor=" + first["next"].(string))); rest != "r2" {
		t.Errorf("the second page is %s", rest)
	}
	for _, bad := range []string{"window=2h", "cursor=x", "limit=0", "route=x", "colour=red"} {
		if got := n.do(t, "GET", "/api/stats?"+bad, "").status; got != 422 {
			t.Errorf("%s: %d", bad, got)
		}
	}
}
