package ratelimit_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/google/go-cmp/cmp"

	"github.com/isekai-gateway/isekai/ratelimit"
)

// Tests that load a config share the process's one Caddy and don't run in parallel.

func freePort(t *testing.T) int {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).Port
}

// site is a server with the handlers that load gives it.
type site struct {
	t       *testing.T
	port    int
	client  *http.Client
	trusted string // range of proxies whose X-Forwarded-For is believed
	routes  string // in place of one with the handlers; "%s" stands for the first
}

func newSite(t *testing.T) *site {
	t.Helper()
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return &site{t: t, client: &http.Client{Transport: transport}, trusted: "127.0.0.1/32", routes: `{"handle": [%s]}`}
}

// load makes the site serve handlers, each time on another port: Caddy may
// answer on the old one from the old config for a while yet. If it fails the
// site stays as it was.
func (s *site) load(handlers ...string) error {
	port := freePort(s.t)
	err := caddy.Load([]byte(fmt.Sprintf(`{
		"admin": {"disabled": true, "config": {"persist": false}},
		"logging": {"logs": {"default": {"writer": {"output": "discard"}}}},
		"apps": {"tls": {"disable_storage_check": true, "disable_storage_clean": true}, "http": {"servers": {"s": {
			"listen": ["127.0.0.1:%d"],
			"automatic_https": {"disable": true},
			"trusted_proxies": {"source": "static", "ranges": [%q]},
			"routes": [%s],
			"errors": {"routes": [{"handle": [{"handler": "static_response", "body": "{http.error.status_code} {http.isekai_rate_limit.policies}"}]}]}
		}}}}}`, port, s.trusted, fmt.Sprintf(s.routes, strings.Join(handlers, ",")))), true)
	if err == nil {
		s.port = port
	}
	return err
}

func (s *site) mustLoad(t *testing.T, handlers ...string) {
	t.Helper()
	if err := s.load(handlers...); err != nil {
		t.Fatal(err)
	}
}

func stop(t *testing.T) {
	t.Helper()
	if err := caddy.Stop(); err != nil {
		t.Error(err)
	}
}

func (s *site) get(t *testing.T, client string) (*http.Response, string) {
	t.Helper()
	return s.getPath(t, "/", "X-Forwarded-For", client, "X-Tenant", client)
}

func (s *site) getPath(t *testing.T, path string, header ...string) (*http.Response, string) {
	t.Helper()
	request, err := http.NewRequest(http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d%s", s.port, path), nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
	}
	response, err := s.client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response, string(body)
}

// admitted asks n times and returns how many were not refused.
func (s *site) admitted(t *testing.T, client string, n int) int {
	t.Helper()
	count := 0
	for range n {
		response, _ := s.get(t, client)
		if response.StatusCode != http.StatusTooManyRequests {
			count++
		}
	}
	return count
}

const (
	hello = `{"handler": "static_response", "body": "hello"}`
	empty = `{"handler": "static_response", "status_code": 204}`
)

// limit is a handler with a window so long that no test sees its end but at an
// hour's turn, where a sliding window makes no difference.
func limit(name string, n int, more string) string {
	return fmt.Sprintf(`{"handler": "isekai_rate_limit", "name": %q, "limit": %d, "window": "1h"%s}`, name, n, more)
}

func TestHandlerAnswers(t *testing.T) {
	s := newSite(t)
	s.mustLoad(t, limit("answers", 2, ""), hello)
	defer stop(t)

	response, body := s.get(t, "192.0.2.1")
	if response.StatusCode != 200 || body != "hello" {
		t.Errorf("first: %d %q", response.StatusCode, body)
	}
	if got, want := response.Header["Ratelimit-Policy"], []string{`"answers";q=2;w=3600`}; !cmp.Equal(got, want) {
		t.Errorf("policy %q, want %q", got, want)
	}
	if got, want := response.Header["Ratelimit"], []string{`"answers";r=1;t=3600`}; !cmp.Equal(got, want) {
		t.Errorf("limit %q, want %q", got, want)
	}
	s.get(t, "192.0.2.1")
	response, body = s.get(t, "192.0.2.1")
	if response.StatusCode != 429 || body != "429 answers" {
		t.Errorf("third: %d %q", response.StatusCode, body)
	}
	if got := response.Header.Get("Ratelimit"); !strings.HasPrefix(got, `"answers";r=0;t=3`) {
		t.Errorf("limit %q", got)
	}
	if got := response.Header.Get("Retry-After"); len(got) != 4 {
		t.Errorf("Retry-After %q, want nearly an hour", got)
	}
	if response, _ := s.get(t, "192.0.2.2"); response.StatusCode != 200 {
		t.Errorf("other client: %d", response.StatusCode)
	}
}

func TestHandlerKeys(t *testing.T) {
	s := newSite(t)
	s.mustLoad(t, limit("by-ip", 2, ""), limit("by-tenant", 100, `, "key": "{http.request.header.X-Tenant}-{http.request.method}"`), hello)
	defer stop(t)
	tests := []struct {
		client string
		want   int
	}{
		{"2001:db8::1", 2},
		{"2001:db8::2", 0},    // the same /64
		{"2001:db8:0:1::", 2}, // another
		{"192.0.2.1", 2},
		{"::ffff:192.0.2.1", 0},
	}
	for _, test := range tests {
		if got := s.admitted(t, test.client, 3); got != test.want {
			t.Errorf("%s: admitted %d, want %d", test.client, got, test.want)
		}
	}
	s.mustLoad(t, limit("by-header", 2, `, "key": "{http.request.header.X-Tenant}"`), hello)
	for _, client := range []string{"2001:db8::1", "2001:db8::2"} {
		if got := s.admitted(t, client, 3); got != 2 {
			t.Errorf("tenant %s: admitted %d, want 2", client, got)
		}
	}
}

func TestReloadKeepsCounters(t *testing.T) {
	s := newSite(t)
	s.mustLoad(t, limit("reload", 100, ""), hello)
	defer stop(t)
	if got := s.admitted(t, "192.0.2.1", 50); got != 50 {
		t.Fatalf("admitted %d of 50", got)
	}
	s.mustLoad(t, limit("reload", 100, ""), limit("another", 1000, ""), hello)
	if got := s.admitted(t, "192.0.2.1", 60); got != 50 {
		t.Errorf("admitted %d after the reload, want 50", got)
	}
	s.mustLoad(t, limit("reload", 110, ""), hello)
	if got := s.admitted(t, "192.0.2.1", 20); got != 10 {
		t.Errorf("admitted %d after the limit was raised, want 10", got)
	}
	if err := s.load(limit("reload", 100, `, "headers": "no such"`), hello); err == nil {
		t.Error("a bad config was loaded")
	}
	if got := s.admitted(t, "192.0.2.1", 1); got != 0 {
		t.Error("a failed reload forgot the counters")
	}
	s.mustLoad(t, hello)
	s.mustLoad(t, limit("reload", 100, ""), hello)
	if got := s.admitted(t, "192.0.2.1", 1); got != 1 {
		t.Error("the counters outlived the last config that named the zone")
	}
}

func TestZonesArePairedWithConfigs(t *testing.T) {
	s := newSite(t)
	want := func(step string, a, b int) {
		t.Helper()
		if gotA, gotB := ratelimit.ZoneReferences("a"), ratelimit.ZoneReferences("b"); gotA != a || gotB != b {
			t.Errorf("%s: %d and %d handlers hold the zones, want %d and %d", step, gotA, gotB, a, b)
		}
	}
	a, b, bad := limit("a", 1, ""), limit("b", 1, ""), limit("b", 1, `, "headers": "no such"`)
	fails := func(handlers ...string) {
		t.Helper()
		if err := s.load(handlers...); err == nil {
			t.Error("a bad config was loaded")
		}
	}
	for range 3 {
		fails(a, bad)
		want("failed first load", 0, 0)
	}
	s.mustLoad(t, a, a, b, hello)
	want("loaded", 2, 1)
	for range 3 {
		fails(a, bad)
		want("failed reload", 2, 1)
	}
	s.mustLoad(t, b, hello)
	want("reloaded", 0, 1)
	stop(t)
	want("stopped", 0, 0)
}

func TestDryRun(t *testing.T) {
	const placeholder = "{http.isekai_rate_limit.policies}"
	s := newSite(t)
	s.mustLoad(t, limit("dry", 1, `, "dry_run": true`),
		fmt.Sprintf(`{"handler": "static_response", "body": %q}`, placeholder))
	defer stop(t)
	for i, want := range []string{placeholder, "dry", "dry"} {
		response, body := s.get(t, "192.0.2.1")
		if response.StatusCode != 200 || body != want || response.Header.Get("Ratelimit") != "" {
			t.Errorf("request %d: %d %q %v, want %q", i, response.StatusCode, body, response.Header, want)
		}
	}
}

func TestFieldsBesideAnUpstreams(t *testing.T) {
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("RateLimit", `"upstream";r=1;t=1`)
		w.Header().Set("X-RateLimit-Remaining", "1")
		w.WriteHeader(http.StatusEarlyHints)
		_, _ = io.WriteString(w, strings.Repeat("x", 100_000))
	}))
	defer upstream.Close()
	proxy := fmt.Sprintf(`{"handler": "reverse_proxy", "upstreams": [{"dial": %q}]}`, upstream.Listener.Addr())
	s := newSite(t)
	defer stop(t)
	tests := []struct {
		name, headers, next string
		want                map[string][]string
	}{
		{"ietf", "ietf", proxy, map[string][]string{
			"Ratelimit":             {`"upstream";r=1;t=1`, `"f-ietf-0";r=8;t=3600`},
			"X-Ratelimit-Remaining": {"1"},
		}},
		{"legacy", "legacy", proxy, map[string][]string{
			"Ratelimit":             {`"upstream";r=1;t=1`},
			"X-Ratelimit-Remaining": {"1"},
		}},
		{"none", "none", proxy, map[string][]string{
			"Ratelimit":             {`"upstream";r=1;t=1`},
			"X-Ratelimit-Remaining": {"1"},
		}},
		{"no body", "ietf", empty, map[string][]string{"Ratelimit": {`"f-ietf-3";r=8;t=3600`}}},
		{"no handler", "ietf", `{"handler": "headers"}`, map[string][]string{"Ratelimit": {`"f-ietf-4";r=8;t=3600`}}},
		{"error", "ietf", `{"handler": "error", "status_code": 500}`, map[string][]string{"Ratelimit": {`"f-ietf-5";r=8;t=3600`}}},
		{"file", "ietf", `{"handler": "file_server", "root": "."}`, map[string][]string{"Ratelimit": {`"f-ietf-6";r=8;t=3600`}}},
	}
	for i, test := range tests {
		name := fmt.Sprintf("f-%s-%d", test.headers, i)
		s.mustLoad(t, limit(name, 9, fmt.Sprintf(`, "headers": %q`, test.headers)), test.next)
		response, _ := s.get(t, "192.0.2.1")
		for field, want := range test.want {
			if got := response.Header[field]; !cmp.Equal(got, want) {
				t.Errorf("%s: %s %q, want %q", test.name, field, got, want)
			}
		}
	}
}

func TestValidate(t *testing.T) {
	s := newSite(t)
	tests := []struct{ config, want string }{
		{`{}`, `name ""`},
		{`{"name": "a b", "limit": 1, "window": "1s"}`, `name "a b"`},
		{`{"name": "v"}`, "no limit and no rules"},
		{`{"name": "v", "limit": 1}`, "window 0s"},
		{`{"name": "v", "window": "1s"}`, "limit 0"},
		{`{"name": "v", "limit": -1, "window": "1s"}`, "limit -1"},
		{`{"name": "v", "limit": 1000000001, "window": "1s"}`, "limit 1000000001"},
		{`{"name": "v", "limit": 1, "window": "500ms"}`, "window 500ms"},
		{`{"name": "v", "limit": 1, "window": "1500ms"}`, "window 1.5s"},
		{`{"name": "v", "limit": 1, "window": "32d"}`, "window 768h"},
		{`{"name": "v", "rules": [{"limit": 1, "window": "1s"}]}`, `rule name ""`},
		{`{"name": "v", "limit": 1, "window": "1s", "rules": [{"name": "v", "limit": 1, "window": "2s"}]}`, "two rules named v"},
		{`{"name": "v", "rules": [{"name": "1"}, {"name": "2"}, {"name": "3"}, {"name": "4"}, {"name": "5"}, {"name": "6"}, {"name": "7"}, {"name": "8"}, {"name": "9"}]}`, "9 rules"},
		{`{"name": "v", "limit": 1, "window": "1s", "headers": "both"}`, `headers "both"`},
		{`{"name": "v", "limit": 1, "window": "1s", "cost": -1}`, "cost -1"},
		{`{"name": "v", "limit": 4, "window": "1s", "cost": 5}`, "cost 5 is not between 1 and 4"},
		{`{"name": "v", "limit": 2000000, "window": "1s", "cost": 1000001}`, "cost 1000001 is not between 1 and 1000000"},
		{`{"name": "v", "limit": 9, "window": "1s", "rules": [{"name": "r", "limit": 9, "window": "2s", "cost": 10}]}`, "rule r: cost 10"},
		{`{"name": "v", "limit": 1, "window": "1s", "unknown": 1}`, "unknown"},
	}
	for _, test := range tests {
		var fields map[string]any
		if err := json.Unmarshal([]byte(test.config), &fields); err != nil {
			t.Fatal(err)
		}
		fields["handler"] = "isekai_rate_limit"
		config, err := json.Marshal(fields)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.load(string(config)); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: error %v, want %q", test.config, err, test.want)
		}
	}
}
