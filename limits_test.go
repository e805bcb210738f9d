package isekai_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/dunglas/httpsfv"
	"github.com/google/go-cmp/cmp"

	"github.com/isekai-gateway/isekai"
	"github.com/isekai-gateway/isekai/ratelimit"
)

// limitField reads a RateLimit or RateLimit-Policy field by the grammar of RFC 9651:
// the parameters by the names of their policies.
func limitField(t *testing.T, values []string) map[string]map[string]int64 {
	t.Helper()
	list, err := httpsfv.UnmarshalList(values)
	if err != nil {
		t.Fatalf("%q is no list of RFC 9651: %v", values, err)
	}
	got := make(map[string]map[string]int64)
	for _, member := range list {
		item := member.(httpsfv.Item)
		params := make(map[string]int64)
		for _, name := range item.Params.Names() {
			value, _ := item.Params.Get(name)
			params[name] = value.(int64)
		}
		got[item.Value.(string)] = params
	}
	return got
}

// left returns what a RateLimit field says is left, by policy.
func left(t *testing.T, res response) map[string]int64 {
	t.Helper()
	got := make(map[string]int64)
	for name, params := range limitField(t, res.Header["Ratelimit"]) {
		got[name] = params["r"]
	}
	return got
}

func newText(t *testing.T, fields http.Header) string {
	t.Helper()
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		maps.Copy(w.Header(), fields)
		fmt.Fprint(w, r.Header.Get("X-Limited"))
	}))
	t.Cleanup(upstream.Close)
	return upstream.URL
}

// trustLocal makes X-Forwarded-For choose the client's address.
func trustLocal(cfg map[string]any) {
	siteOf(cfg)["trusted_proxies"] = map[string]any{"source": "static", "ranges": []string{"127.0.0.1/32"}}
}

func TestRulesOfARoute(t *testing.T) {
	s := start(t, trustLocal)
	id := s.create(route{"path": "/*", "target_url": newText(t, nil), "rate_limit": 6, "limits": route{
		"window": 3600, "cost": 2, "rules": []any{
			route{"name": "day", "limit": 100, "window": 86_400, "cost": 25, "key": "{http.request.header.X-Tenant}"},
			route{"name": "path", "limit": 50, "window": 86_400, "key": "{client_ip} {http.request.uri.path}"},
		},
	}})
	get := func(client, tenant, path string, status int, want map[string]int64) response {
		t.Helper()
		res := s.get(path, "X-Forwarded-For", client, "X-Tenant", tenant)
		if diff := cmp.Diff(want, left(t, res)); diff != "" || res.StatusCode != status {
			t.Errorf("%s at %s: %d, want %d; left (-want +got):\n%s", client, path, res.StatusCode, status, diff)
		}
		return res
	}
	res := get("2001:db8::1", "x", "/a", 200, map[string]int64{"route": 4, "day": 75, "path": 48})
	policy := map[string]map[string]int64{"route": {"q": 6, "w": 3600}, "day": {"q": 100, "w": 86_400}, "path": {"q": 50, "w": 86_400}}
	if diff := cmp.Diff(policy, limitField(t, res.Header["Ratelimit-Policy"])); diff != "" {
		t.Errorf("policies (-want +got):\n%s", diff)
	}
	// An IPv6 client is its /64, but only where it is all of the key.
	get("2001:db8::2", "x", "/a", 200, map[string]int64{"route": 2, "day": 50, "path": 48})
	get("2001:db8:0:1::1", "x", "/b", 200, map[string]int64{"route": 4, "day": 25, "path": 48})
	get("2001:db8::1", "y", "/a", 200, map[string]int64{"route": 0, "day": 75, "path": 46})

	res = get("2001:db8::3", "x", "/a", 429, map[string]int64{"route": 0, "day": 25, "path": 50})
	var p struct {
		Type     string
		Status   int
		Violated []string `json:"violated-policies"`
	}
	if err := json.Unmarshal([]byte(res.body), &p); err != nil {
		t.Fatal(err)
	}
	if p.Type != "https://iana.org/assignments/http-problem-types#quota-exceeded" || p.Status != 429 || !slices.Equal(p.Violated, []string{"route"}) {
		t.Errorf("the problem is %+v", p)
	}
	wait, err := strconv.Atoi(res.Header.Get("Retry-After"))
	if reset := limitField(t, res.Header["Ratelimit"])["route"]["t"]; err != nil || wait < 1 || int64(wait) != reset {
		t.Errorf("Retry-After is %q, the reset %d", res.Header.Get("Retry-After"), reset)
	}

	// An edit keeps what is used, also under another limit; another window starts afresh.
	s.write("PATCH", "/api/routes/"+strconv.FormatInt(id, 10), route{"rate_limit": 10, "limits": route{
		"rules": []any{route{"name": "day", "limit": 90, "window": 3600, "cost": 1}, route{"name": "path", "limit": 60, "window": 86_400, "key": "{client_ip} {http.request.uri.path}"}},
	}})
	get("2001:db8::1", "x", "/a", 200, map[string]int64{"route": 2, "day": 89, "path": 54})
	// So does a reload.
	if err := s.load(trustLocal); err != nil {
		t.Fatal(err)
	}
	get("2001:db8::1", "x", "/a", 200, map[string]int64{"route": 0, "day": 88, "path": 52})
	get("2001:db8::1", "x", "/a", 429, map[string]int64{"route": 0, "day": 88, "path": 52})
}

// TestReloadLeavesHalf uses 50 of 100, reloads, and finds 50 left.
func TestReloadLeavesHalf(t *testing.T) {
	s := start(t, nil)
	s.create(route{"path": "/*", "target_url": newText(t, nil), "rate_limit": 100, "limits": route{"window": 86_400}})
	admitted := func(n int) (count int) {
		for range n {
			if s.get("/x").StatusCode == http.StatusOK {
				count++
			}
		}
		return count
	}
	if got := admitted(50); got != 50 {
		t.Errorf("%d of 50 were admitted", got)
	}
	for range 3 {
		if err := s.load(nil); err != nil {
			t.Fatal(err)
		}
	}
	if got := admitted(60); got != 50 {
		t.Errorf("%d were admitted after the reload, want 50", got)
	}
}

func TestRulesWithoutRateLimit(t *testing.T) {
	s := start(t, nil)
	s.create(route{"path": "/*", "target_url": newText(t, nil), "limits": route{"rules": []any{route{"name": "burst", "limit": 1, "window": 3600}}}})
	first, second := s.get("/x"), s.get("/x")
	if first.StatusCode != 200 || second.StatusCode != 429 || !strings.Contains(second.body, `"violated-policies":["burst"]`) {
		t.Errorf("%d, then %d %s", first.StatusCode, second.StatusCode, second.body)
	}
	if diff := cmp.Diff(map[string]int64{"burst": 0}, left(t, second)); diff != "" {
		t.Error(diff)
	}
}

func TestSpoofedAddressIsNotTheKey(t *testing.T) {
	s := start(t, nil) // trusts nobody
	s.create(route{"path": "/*", "target_url": newText(t, nil), "rate_limit": 3})
	for i := range 5 {
		address := fmt.Sprintf("198.51.100.%d", i)
		res := s.get("/x", "X-Forwarded-For", address, "X-Real-IP", address, "Forwarded", "for="+address)
		if want := map[bool]int{true: 200, false: 429}[i < 3]; res.StatusCode != want {
			t.Errorf("request %d: status %d, want %d", i+1, res.StatusCode, want)
		}
	}
}

func TestDryRunOfARoute(t *testing.T) {
	s := start(t, func(cfg map[string]any) {
		siteOf(cfg)["metrics"] = map[string]any{}
	})
	s.create(route{
		"path": "/dry", "target_url": newText(t, nil), "rate_limit": 1, "limits": route{"dry_run": true},
		"plugins": []any{route{"handler": "headers", "request": route{"set": route{"X-Limited": []string{"<{http.isekai.limited}>"}}}}},
	})
	s.create(route{"path": "/wet", "target_url": newText(t, nil), "rate_limit": 1})
	for i, want := range []string{"<>", "<route>", "<route>"} {
		res := s.get("/dry")
		if res.StatusCode != 200 || res.body != want || res.Header.Get("RateLimit") != "" || res.Header.Get("RateLimit-Policy") != "" || res.Header.Get("Retry-After") != "" {
			t.Errorf("request %d: %d %q %v, want %q", i+1, res.StatusCode, res.body, res.Header, want)
		}
	}
	for _, want := range []int{200, 429} {
		if res := s.get("/wet"); res.StatusCode != want {
			t.Errorf("%d, want %d", res.StatusCode, want)
		}
	}
	metrics := s.do("GET", s.admin+"/metrics", "").body
	for decision, n := range map[string]int{"allowed": 2, "limited": 1, "dry_run": 2} {
		if line := fmt.Sprintf("isekai_ratelimit_decisions_total{decision=%q} %d\n", decision, n); !strings.Contains(metrics, line) {
			t.Errorf("the metrics lack %q", line)
		}
	}
}

func TestLimitFieldsOfARoute(t *testing.T) {
	all := []string{"Ratelimit", "Ratelimit-Policy", "X-Ratelimit-Limit", "X-Ratelimit-Remaining", "X-Ratelimit-Reset"}
	s := start(t, func(cfg map[string]any) { isekaiApp(cfg)["rate_limit"] = map[string]any{"headers": "legacy"} })
	strict := http.Header{
		"Ratelimit": {`"up";r=1;t=50`}, "Ratelimit-Policy": {`"up";q=2;w=60`},
		"X-Ratelimit-Limit": {"2"}, "X-Ratelimit-Remaining": {"1"}, "X-Ratelimit-Reset": {"9000"},
	}
	loose := http.Header{"X-Ratelimit-Limit": {"5000"}, "X-Ratelimit-Remaining": {"4999"}, "X-Ratelimit-Reset": {"1"}}
	ours := []string{"10", "9", "3600"}
	tests := []struct {
		name     string
		limits   route
		upstream http.Header
		want     map[string][]string // other fields are not there
	}{
		{"of the app", nil, nil, map[string][]string{all[2]: ours[:1], all[3]: ours[1:2], all[4]: ours[2:]}},
		{"ietf", route{"headers": "ietf"}, nil, map[string][]string{all[0]: {`"route";r=9;t=3600`}, all[1]: {`"route";q=10;w=3600`}}},
		{"none", route{"headers": "none"}, nil, map[string][]string{}},
		{"strict and legacy", route{"headers": "legacy"}, strict, strict},
		{"strict and none", route{"headers": "none"}, strict, strict},
		{"strict and ietf", route{"headers": "ietf"}, strict, map[string][]string{
			all[0]: {`"up";r=1;t=50`, `"route";r=9;t=3600`}, all[1]: {`"up";q=2;w=60`, `"route";q=10;w=3600`}, all[2]: {"2"}, all[3]: {"1"}, all[4]: {"9000"},
		}},
		{"loose and legacy", route{"headers": "legacy"}, loose, map[string][]string{all[2]: ours[:1], all[3]: ours[1:2], all[4]: ours[2:]}},
		{"loose and none", route{"headers": "none"}, loose, loose},
	}
	for i, tt := range tests {
		limits := route{"window": 3600}
		maps.Copy(limits, tt.limits)
		path := fmt.Sprintf("/%d", i)
		s.create(route{"path": path, "target_url": newText(t, tt.upstream), "rate_limit": 10, "limits": limits})
		got := make(map[string][]string)
		res := s.get(path)
		for _, field := range all {
			if values, ok := res.Header[field]; ok {
				got[field] = values
			}
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
		limitField(t, res.Header["Ratelimit"])
		limitField(t, res.Header["Ratelimit-Policy"])
	}
}

// TestUnavailableLimitIsAProblem has an error of a shared backend answered.
func TestUnavailableLimitIsAProblem(t *testing.T) {
	t.Parallel()
	cause := errors.New("dial tcp 10.0.0.9:6379: connection refused")
	err := caddyhttp.Error(http.StatusServiceUnavailable, fmt.Errorf("%w: %w", ratelimit.ErrUnavailable, cause))
	r := httptest.NewRequest("GET", "/", nil)
	r = r.WithContext(context.WithValue(r.Context(), caddyhttp.ErrorCtxKey, error(err)))
	rec := httptest.NewRecorder()
	handler := new(isekai.Problem)
	ctx, cancel := caddy.NewContext(caddy.Context{Context: t.Context()})
	defer cancel()
	if err := handler.Provision(ctx); err != nil {
		t.Fatal(err)
	}
	if err := handler.ServeHTTP(rec, r, nil); err != nil {
		t.Fatal(err)
	}
	var p struct{ Type, Detail string }
	if err := json.NewDecoder(bytes.NewReader(rec.Body.Bytes())).Decode(&p); err != nil {
		t.Fatal(err)
	}
	if rec.Code != 503 || !strings.HasSuffix(p.Type, "#temporary-reduced-capacity") || p.Detail != ratelimit.ErrUnavailable.Error() {
		t.Errorf("%d %s", rec.Code, rec.Body)
	}
}
