package isekai_test

import (
	"net/http"
	"net/url"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// nowhere takes an answer and forgets it.
type nowhere struct{ header http.Header }

func (n *nowhere) Header() http.Header         { return n.header }
func (n *nowhere) WriteHeader(int)             {}
func (n *nowhere) Write(p []byte) (int, error) { return len(p), nil }

// BenchmarkHandler measures a request from Caddy's server through the gateway without
// forwarding it: a plugin answers. "caddy" is Caddy's own part of that, without a
// gateway; the difference is ours.
func BenchmarkHandler(b *testing.B) {
	answer := map[string]any{"handler": "static_response", "status_code": 200}
	for _, bm := range []struct {
		name  string
		edit  func(cfg map[string]any)
		route route
	}{
		{name: "caddy", edit: func(cfg map[string]any) {
			siteOf(cfg)["routes"] = []any{map[string]any{"handle": []any{answer}}}
		}},
		{name: "plain", edit: func(cfg map[string]any) {
			isekaiApp(cfg)["request_log"] = map[string]any{"off": true}
		}, route: route{}},
		{name: "limited", edit: func(cfg map[string]any) {
			isekaiApp(cfg)["request_log"] = map[string]any{"off": true}
		}, route: route{"rate_limit": 1_000_000_000}},
		{name: "logged", route: route{"rate_limit": 1_000_000_000}},
	} {
		b.Run(bm.name, func(b *testing.B) {
			s := start(b, func(cfg map[string]any) {
				siteOf(cfg)["read_idle_timeout"] = -1
				if bm.edit != nil {
					bm.edit(cfg)
				}
			})
			if bm.route != nil {
				bm.route["path"], bm.route["method"] = "/r/0/*", "*"
				bm.route["target_url"] = "http://127.0.0.1:1"
				bm.route["plugins"] = []any{answer}
				s.create(bm.route)
				eventually(b, "the route is served", func() bool { return s.get("/r/0/128").StatusCode == http.StatusOK })
			}
			app, err := caddy.ActiveContext().App("http")
			if err != nil {
				b.Fatal(err)
			}
			server := app.(*caddyhttp.App).Servers["srv"]
			b.ReportAllocs()
			for b.Loop() {
				serveOne(server)
			}
		})
	}
}

// serveOne sends a request as a browser would.
func serveOne(h http.Handler) {
	h.ServeHTTP(&nowhere{http.Header{}}, &http.Request{
		Method: http.MethodGet, URL: &url.URL{Path: "/r/0/128"}, RequestURI: "/r/0/128", Host: "example.com",
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Body: http.NoBody, RemoteAddr: "192.0.2.1:1234",
		Header: http.Header{
			"User-Agent":      {"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36"},
			"Accept":          {"text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"},
			"Accept-Language": {"en-US,en;q=0.9,de;q=0.8"},
			"Accept-Encoding": {"gzip, deflate, br"},
			"Cookie":          {"session=0123456789abcdef0123456789abcdef; theme=dark"},
		},
	})
}
