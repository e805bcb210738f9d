package isekai_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// echo is an upstream that tells what it was sent.
func echo(t *testing.T) *httptest.Server {
	t.Helper()
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(seen{Method: r.Method, URI: r.RequestURI, Host: r.Host, Header: r.Header})
	}))
	t.Cleanup(upstream.Close)
	return upstream
}

type seen struct {
	Method, URI, Host string
	Header            http.Header
}

func decodeSeen(t *testing.T, res response) seen {
	t.Helper()
	var got seen
	if err := json.Unmarshal([]byte(res.body), &got); err != nil {
		t.Fatalf("status %d, body %q: %v", res.StatusCode, res.body, err)
	}
	return got
}

func TestForwarding(t *testing.T) {
	s, upstream := start(t, nil), echo(t)
	host := strings.TrimPrefix(upstream.URL, "http://")
	s.create(route{"path": "/plain/*", "target_url": upstream.URL, "method": "*"})
	s.create(route{"path": "/strip/{id}", "target_url": upstream.URL + "/v2", "strip_prefix": true})
	s.create(route{"path": "/rewrite/{a}/{rest...}", "target_url": upstream.URL + "/{rest}/x/{a}"})
	s.create(route{"path": "/keep/*", "target_url": upstream.URL, "preserve_host": true})
	s.create(route{"path": "/merge/*", "target_url": upstream.URL, "merge_slashes": true})

	tests := []struct{ name, method, path, uri, host string }{
		{name: "path and query", path: "/plain/a/b?x=1&y=%20", uri: "/plain/a/b?x=1&y=%20"},
		{name: "encoded slash", path: "/plain/a%2fb", uri: "/plain/a%2Fb"},
		{name: "unreserved decoded", path: "/plain/%61%7E", uri: "/plain/a~"},
		{name: "sub-delims as sent", path: "/plain/a!b'(c)*,;=:@$&+", uri: "/plain/a!b'(c)*,;=:@$&+"},
		{name: "encoded sub-delims as sent", path: "/plain/%21%2A", uri: "/plain/%21%2A"},
		{name: "trailing slash", path: "/plain/", uri: "/plain/"},
		{name: "POST", method: "POST", path: "/plain/p", uri: "/plain/p"},
		{name: "custom method", method: "PROPFIND", path: "/plain/p", uri: "/plain/p"},
		{name: "strip", path: "/strip/5?q", uri: "/v2/5?q"},
		{name: "rewrite", path: "/rewrite/1/2/3%2F4", uri: "/2/3%2F4/x/1"},
		{name: "preserve host", path: "/keep/x", uri: "/keep/x", host: fmt.Sprintf("127.0.0.1:%d", s.port)},
		{name: "merge slashes", path: "/merge//a///b/", uri: "/merge/a/b/"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			method := tt.method
			if method == "" {
				method = "GET"
			}
			got := decodeSeen(t, s.do(method, s.site+tt.path, ""))
			if got.URI != tt.uri || got.Method != method {
				t.Errorf("upstream saw %s %s, want %s %s", got.Method, got.URI, method, tt.uri)
			}
			want := host
			if tt.host != "" {
				want = tt.host
			}
			if got.Host != want {
				t.Errorf("upstream saw host %s, want %s", got.Host, want)
			}
		})
	}
}

// TestRequestTargets sends request lines that clients of a library can't.
func TestRequestTargets(t *testing.T) {
	s, upstream := start(t, nil), echo(t)
	s.create(route{"path": "/*", "target_url": upstream.URL + "/public"})
	s.create(route{"path": "/admin", "target_url": upstream.URL, "auth": route{"any": []string{"api_key"}}})
	s.create(route{"path": "/asks", "target_url": upstream.URL, "auth": route{"any": []string{"api_key"}}, "query": route{"admin": "*"}})
	many := strings.Repeat("&", 10_000)
	for _, tt := range []struct {
		target string
		status int
		uri    string // what the upstream sees
	}{
		{"/admin", 401, ""},
		{"http://b/x", 200, "/public/x"},
		{"http://b/admin", 401, ""},
		{"http://b", 200, "/public/"},
		{"x:http://internal/admin", 400, ""},
		{"x:admin", 400, ""},
		{"http:/admin", 401, ""},
		{"http:admin", 400, ""},
		{"x:/admin", 401, ""},
		{"//b/admin", 400, ""},
		{"*", 400, ""},
		{"/asks", 200, "/public/asks"},
		{"/asks?admin", 401, ""},
		{"/asks?admin=1;x", 401, ""},
		{"/asks?admin=%zz", 401, ""},
		{"/asks?admin=1" + many, 400, ""},
		{"/free?admin=1" + many, 200, "/public/free?admin=1" + many},
	} {
		t.Run(tt.target[:min(30, len(tt.target))], func(t *testing.T) {
			conn, err := net.Dial("tcp", strings.TrimPrefix(s.site, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", tt.target)
			res, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			body, err := io.ReadAll(res.Body)
			if err != nil || res.StatusCode != tt.status {
				t.Fatalf("%d %s, %v; want %d", res.StatusCode, body, err, tt.status)
			}
			if tt.uri == "" {
				return
			}
			if got := decodeSeen(t, response{res, string(body)}); got.URI != tt.uri {
				t.Errorf("upstream saw %.50s, want %.50s", got.URI, tt.uri)
			}
		})
	}
}

func TestRequestHeaders(t *testing.T) {
	s, upstream := start(t, nil), echo(t)
	s.create(route{"path": "/*", "target_url": upstream.URL, "plugins": []any{
		map[string]any{"handler": "headers", "request": map[string]any{"set": map[string]any{
			"X-User":  []string{"alice"},
			"X-Route": []string{"{http.isekai.route}"},
			"X-Param": []string{"{http.isekai.request_id}"},
		}}},
	}})
	site := fmt.Sprintf("127.0.0.1:%d", s.port)

	tests := []struct {
		name string
		send []string
		want map[string]string // "" means absent
	}{
		{"forwarded fields are made", nil, map[string]string{
			"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Proto": "http", "X-Forwarded-Host": site,
		}},
		{"forwarded fields of an untrusted client are replaced", []string{
			"X-Forwarded-For", "6.6.6.6", "X-Forwarded-Proto", "https", "X-Forwarded-Host", "evil.example",
		}, map[string]string{
			"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Proto": "http", "X-Forwarded-Host": site,
		}},
		{"address fields of an untrusted client are removed", []string{
			"Forwarded", "for=6.6.6.6", "X-Real-IP", "6.6.6.6", "True-Client-IP", "6.6.6.6", "X-Original-URL", "/admin",
		}, map[string]string{"Forwarded": "", "X-Real-Ip": "", "True-Client-Ip": "", "X-Original-Url": ""}},
		{"Connection can't name a plugin's field", []string{"Connection", "close, X-User"}, map[string]string{"X-User": "alice"}},
		{"Connection drops the client's own fields", []string{"Connection", "X-Own", "X-Own", "1"}, map[string]string{"X-Own": "", "Connection": ""}},
		{"upgrade to HTTP/2 is not forwarded", []string{
			"Connection", "Upgrade, HTTP2-Settings", "Upgrade", "h2c", "HTTP2-Settings", "AAMAAABkAARAAAAAAAIAAAAA",
		}, map[string]string{"Upgrade": "", "Http2-Settings": "", "Connection": ""}},
		{"hop-by-hop fields are not forwarded", []string{"TE", "gzip", "Proxy-Authorization", "x", "Keep-Alive", "5"},
			map[string]string{"Te": "", "Proxy-Authorization": "", "Keep-Alive": ""}},
		{"a good request id is kept", []string{"X-Request-ID", "abc-123"}, map[string]string{"X-Request-Id": "abc-123", "X-Param": "abc-123"}},
		{"placeholders", nil, map[string]string{"X-Route": "1"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			res := s.get("/x", tt.send...)
			got := decodeSeen(t, res)
			for name, want := range tt.want {
				if value := strings.Join(got.Header.Values(name), ","); value != want {
					t.Errorf("%s: %q, want %q", name, value, want)
				}
			}
			if id := got.Header.Get("X-Request-Id"); id == "" || res.Header.Get("X-Request-Id") != id {
				t.Errorf("request id %q upstream, %q in the answer", id, res.Header.Get("X-Request-Id"))
			}
		})
	}

	t.Run("a bad request id is replaced", func(t *testing.T) {
		for _, id := range []string{"", "a b", "a\tb", strings.Repeat("x", 129), "<script>"} {
			got := decodeSeen(t, s.get("/x", "X-Request-Id", id)).Header.Get("X-Request-Id")
			if got == id || len(got) != 36 {
				t.Errorf("id %q became %q", id, got)
			}
		}
	})
}

func TestTrustedProxyIsBelieved(t *testing.T) {
	s, upstream := start(t, func(cfg map[string]any) {
		siteOf(cfg)["trusted_proxies"] = map[string]any{"source": "static", "ranges": []string{"127.0.0.0/8"}}
	}), echo(t)
	s.create(route{"path": "/*", "target_url": upstream.URL})
	got := decodeSeen(t, s.get("/x", "X-Forwarded-For", "203.0.113.7", "X-Real-Ip", "203.0.113.7", "X-Forwarded-Proto", "https"))
	want := map[string]string{"X-Forwarded-For": "203.0.113.7, 127.0.0.1", "X-Real-Ip": "203.0.113.7", "X-Forwarded-Proto": "https"}
	for name, value := range want {
		if got.Header.Get(name) != value {
			t.Errorf("%s: %q, want %q", name, got.Header.Get(name), value)
		}
	}
}

func TestProblems(t *testing.T) {
	s := start(t, nil)
	refused := freePort(t)
	s.create(route{"path": "/only-get", "target_url": "http://127.0.0.1:1"})
	s.create(route{"path": "/refused", "target_url": fmt.Sprintf("http://127.0.0.1:%d", refused)})
	s.create(route{"path": "/limited", "target_url": fmt.Sprintf("http://127.0.0.1:%d", refused), "rate_limit": 1})

	tests := []struct {
		name, method, path string
		status             int
		header             map[string]string
		detail, kind       string
	}{
		{name: "no route", path: "/nope", status: 404, detail: "no route"},
		{name: "method", method: "POST", path: "/only-get", status: 405, header: map[string]string{"Allow": "GET, HEAD"}},
		{name: "TRACE", method: "TRACE", path: "/only-get", status: 405},
		{name: "bad path", path: "/a/%2e%2e/b", status: 400, detail: "dot segment"},
		{name: "repeated slashes", path: "//only-get", status: 400, detail: "repeated slashes"},
		{name: "upstream refused", path: "/refused", status: 502, detail: "upstream"},
		{name: "admitted", path: "/limited", status: 502},
		{name: "over the limit", path: "/limited", status: 429, kind: "https://iana.org/assignments/http-problem-types#quota-exceeded",
			header: map[string]string{"RateLimit-Policy": `"route";q=1;w=60`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			method := tt.method
			if method == "" {
				method = "GET"
			}
			res := s.do(method, s.site+tt.path, "")
			var p struct {
				Type, Title, Detail string
				Status              int
				RequestID           string `json:"request_id"`
			}
			if err := json.Unmarshal([]byte(res.body), &p); err != nil {
				t.Fatalf("%d %q: %v", res.StatusCode, res.body, err)
			}
			if res.StatusCode != tt.status || p.Status != tt.status || p.Title != http.StatusText(tt.status) {
				t.Errorf("got %d, %+v", res.StatusCode, p)
			}
			if got := res.Header.Get("Content-Type"); got != "application/problem+json" {
				t.Errorf("Content-Type %q", got)
			}
			if !strings.Contains(p.Detail, tt.detail) || p.Type != tt.kind {
				t.Errorf("got %+v", p)
			}
			if p.RequestID == "" || res.Header.Get("X-Request-Id") != p.RequestID {
				t.Errorf("request id %q, field %q", p.RequestID, res.Header.Get("X-Request-Id"))
			}
			if strings.Contains(res.body, "127.0.0.1") {
				t.Errorf("the answer tells the upstream's address: %s", res.body)
			}
			for name, want := range tt.header {
				if got := res.Header.Get(name); got != want {
					t.Errorf("%s: %q, want %q", name, got, want)
				}
			}
		})
	}
}

func TestSitesErrorRoutesComeFirst(t *testing.T) {
	s := start(t, func(cfg map[string]any) {
		siteOf(cfg)["errors"] = map[string]any{"routes": []any{map[string]any{
			"match":  []any{map[string]any{"path": []string{"/own/*"}}},
			"handle": []any{map[string]any{"handler": "static_response", "status_code": "{http.error.status_code}", "body": "own page"}},
		}}}
	})
	if res := s.get("/own/x"); res.StatusCode != 404 || res.body != "own page" {
		t.Errorf("got %d %q", res.StatusCode, res.body)
	}
	if res := s.get("/other"); res.StatusCode != 404 || !strings.Contains(res.body, `"no route matches the request"`) {
		t.Errorf("got %d %q", res.StatusCode, res.body)
	}
}

func TestPassThru(t *testing.T) {
	s := start(t, func(cfg map[string]any) {
		siteOf(cfg)["routes"] = []any{map[string]any{"handle": []any{
			map[string]any{"handler": "isekai", "pass_thru": true, "health_path": "/up"},
			map[string]any{"handler": "static_response", "body": "next {http.request.uri}"},
		}}}
	})
	upstream := echo(t)
	s.create(route{"path": "/mine", "target_url": upstream.URL})
	if res := s.get("/mine"); res.StatusCode != 200 || !strings.Contains(res.body, "/mine") {
		t.Errorf("a route: %d %q", res.StatusCode, res.body)
	}
	if res := s.get("/%6fther?a"); res.body != "next /%6fther?a" || res.Header.Get("X-Request-Id") != "" {
		t.Errorf("no route: %q, %v", res.body, res.Header)
	}
	if res := s.do("POST", s.site+"/mine", ""); res.body != "next /mine" || res.Header.Get("Allow") != "" {
		t.Errorf("no route for the method: %q, %v", res.body, res.Header)
	}
	for path, want := range map[string]string{
		"/up": `{"status":"ok"}`, "/up/ready": `{"status":"ok"}`, "/up/live": `{"status":"ok"}`,
		"/up/": "next /up/", "/upper": "next /upper", "/up/lives": "next /up/lives", "/u": "next /u",
	} {
		if res := s.get(path); res.StatusCode != 200 || strings.TrimSpace(res.body) != want {
			t.Errorf("%s: %d %q, want %q", path, res.StatusCode, res.body, want)
		}
	}
}

func TestPluginsOrderAndChainSharing(t *testing.T) {
	s, upstream := start(t, nil), echo(t)
	plugins := []any{
		map[string]any{"handler": "headers", "request": map[string]any{"add": map[string]any{"X-Seen": []string{"first"}}}},
		map[string]any{"handler": "headers", "request": map[string]any{"add": map[string]any{"X-Seen": []string{"second"}}}},
		map[string]any{"handler": "rewrite", "uri": "/rewritten{http.request.uri}"},
	}
	s.create(route{"path": "/a", "target_url": upstream.URL, "plugins": plugins})
	s.create(route{"path": "/b", "target_url": upstream.URL + "/base", "plugins": plugins})
	a, b := decodeSeen(t, s.get("/a")), decodeSeen(t, s.get("/b"))
	if a.URI != "/rewritten/a" || b.URI != "/base/rewritten/b" {
		t.Errorf("upstream saw %s and %s", a.URI, b.URI)
	}
	want := []string{"first", "second"}
	if diff := cmp.Diff(want, a.Header.Values("X-Seen")); diff != "" {
		t.Error(diff)
	}
	// The two routes share the plugins: disposing one must leave the other's alone.
	if res := s.write("DELETE", "/api/routes/1", nil); res.StatusCode != 204 {
		t.Fatalf("deleting: %d %s", res.StatusCode, res.body)
	}
	if diff := cmp.Diff(want, decodeSeen(t, s.get("/b")).Header.Values("X-Seen")); diff != "" {
		t.Error(diff)
	}
}

func TestSiteLimitAnswersWithAProblem(t *testing.T) {
	s := start(t, func(cfg map[string]any) {
		siteOf(cfg)["routes"] = handle(
			route{"handler": "isekai_rate_limit", "name": "site", "limit": 1, "window": "1m"},
			route{"handler": "isekai"})
	})
	s.get("/x")
	res := s.get("/x")
	if res.StatusCode != 429 || res.Header.Get("Content-Type") != "application/problem+json" ||
		!strings.Contains(res.body, `"violated-policies":["`) || res.Header.Get("Retry-After") == "" {
		t.Errorf("got %d %v %s", res.StatusCode, res.Header, res.body)
	}
}

func TestMaxConcurrent(t *testing.T) {
	s, upstream := start(t, func(cfg map[string]any) { isekaiApp(cfg)["max_concurrent"] = 1 }), newHolding(t)
	s.create(route{"path": "/*", "target_url": upstream.URL})
	held := s.background("/hold")
	<-upstream.arrived
	res := s.get("/x")
	if res.StatusCode != http.StatusServiceUnavailable || res.Header.Get("Retry-After") != "1" {
		t.Errorf("beyond the bound: %d %v", res.StatusCode, res.Header)
	}
	close(upstream.release)
	if got := <-held; got != answered {
		t.Errorf("the request within the bound got %s", got)
	}
	if res := s.get("/x"); res.StatusCode != 200 {
		t.Errorf("after it: %d", res.StatusCode)
	}
}
