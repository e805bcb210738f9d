package proxy_test

import (
	"strings"
	"testing"

	"github.com/isekai-gateway/isekai/proxy"
	"github.com/isekai-gateway/isekai/routing"
)

func TestParseTarget(t *testing.T) {
	t.Parallel()
	tests := []struct {
		url, scheme, address, host string
		h2c                        bool
	}{
		{url: "http://10.0.0.5:9000", scheme: "http", address: "10.0.0.5:9000", host: "10.0.0.5:9000"},
		{url: "http://10.0.0.5:9000/", scheme: "http", address: "10.0.0.5:9000", host: "10.0.0.5:9000"},
		{url: "http://api.internal", scheme: "http", address: "api.internal:80", host: "api.internal"},
		{url: "http://api.internal:80/v1", scheme: "http", address: "api.internal:80", host: "api.internal"},
		{url: "https://api.internal", scheme: "https", address: "api.internal:443", host: "api.internal"},
		{url: "https://api.internal:80", scheme: "https", address: "api.internal:80", host: "api.internal:80"},
		{url: "HTTP://API.Internal:08080", scheme: "http", address: "api.internal:8080", host: "api.internal:8080"},
		{url: "h2c://10.0.0.5:50051", scheme: "http", address: "10.0.0.5:50051", host: "10.0.0.5:50051", h2c: true},
		{url: "http://[2001:db8::1]:81/x", scheme: "http", address: "[2001:db8::1]:81", host: "[2001:db8::1]:81"},
		{url: "http://[2001:DB8:0::1]", scheme: "http", address: "[2001:db8::1]:80", host: "[2001:db8::1]"},
		{url: "http://orders_service:8080", scheme: "http", address: "orders_service:8080", host: "orders_service:8080"},
		{url: "http://bücher.example", scheme: "http", address: "xn--bcher-kva.example:80", host: "xn--bcher-kva.example"},
	}
	for _, tt := range tests {
		t.Run(tt.url, func(t *testing.T) {
			t.Parallel()
			got, err := proxy.ParseTarget(tt.url, nil)
			if err != nil {
				t.Fatal(err)
			}
			if got.Scheme != tt.scheme || got.Address != tt.address || got.Host != tt.host || got.H2C != tt.h2c {
				t.Errorf("got %+v", got)
			}
		})
	}
}

func TestParseTargetRefuses(t *testing.T) {
	t.Parallel()
	tests := []struct{ url, want string }{
		{"", "must be a URL"},
		{"10.0.0.5:9000", "must be a URL"},
		{"ftp://10.0.0.5", "scheme"},
		{"file:///etc/passwd", "scheme"},
		{"unix:///run/x.sock", "scheme"},
		{"http://", "no valid host"},
		{"http:///path", "no valid host"},
		{"http://:80", "no valid host"},
		{"http://user:pass@10.0.0.5", "user name"},
		{"http://10.0.0.5:", "no port"},
		{"http://10.0.0.5:0", "port"},
		{"http://10.0.0.5:65536", "port"},
		{"http://10.0.0.5:http", "host"},
		{"http://{id}.example/", "placeholder"},
		{"http://10.0.0.5:{port}/", "placeholder"},
		{"http://{env.HOST}/", "placeholder"},
		{"http://10.0.0.5/?a=b", "query"},
		{"http://10.0.0.5?a=b", "query"},
		{"http://10.0.0.5/#x", "query or a fragment"},
		{"http://10.0.0.5/{other}", "not a parameter"},
		{"http://10.0.0.5/{env.HOME}", "not a parameter"},
		{"http://10.0.0.5/x{id}", "whole segment"},
		{"http://10.0.0.5/{id", "whole segment"},
		{"http://10.0.0.5/a/*", "{rest...}"},
		{"http://10.0.0.5/a/../b", "dot segment"},
		{"http://10.0.0.5/a//b", "repeated slashes"},
		{"http://10.0.0.5/%zz", "path"},
		{"http://2130706433/", "looks like an IP address"},
		{"http://0x7f000001/", "looks like an IP address"},
		{"http://0177.0.0.1/", "looks like an IP address"},
		{"http://127.1/", "looks like an IP address"},
		{"http://127.0.0.1./", "looks like an IP address"},
		{"http://[fe80::1%25eth0]/", "zones"},
		{"http://exa mple/", "host"},
		{"http://-_!.example/", "host"},
		{"http://a..b/", "host"},
		{"http://" + strings.Repeat("a.", 200) + "a/", "253"},
	}
	for _, tt := range tests {
		t.Run(tt.url, func(t *testing.T) {
			t.Parallel()
			got, err := proxy.ParseTarget(tt.url, []string{"id"})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %+v, %v; want an error with %q", got, err, tt.want)
			}
		})
	}
}

func TestTargetPath(t *testing.T) {
	t.Parallel()
	tests := []struct {
		pattern, target, request, want string
		now                            string // another path by a plugin
		strip                          bool
	}{
		{pattern: "/orders/{id}", target: "http://x", request: "/orders/5", want: "/orders/5"},
		{pattern: "/orders/{id}", target: "http://x/", request: "/orders/5", want: "/orders/5"},
		{pattern: "/orders/{id}", target: "http://x/v2", request: "/orders/5", want: "/v2/orders/5"},
		{pattern: "/orders/{id}", target: "http://x/v2/", request: "/orders/5", want: "/v2/orders/5"},
		{pattern: "/orders/{id}", target: "http://x/v2", request: "/orders/5", strip: true, want: "/v2/5"},
		{pattern: "/orders/{id}", target: "http://x/v2/o/{id}", request: "/orders/5", want: "/v2/o/5"},
		{pattern: "/orders/{id}", target: "http://x/{id}/", request: "/orders/a%2Fb", want: "/a%2Fb/"},
		{pattern: "/{a}/{b}", target: "http://x/{b}/{a}", request: "/1/2", want: "/2/1"},
		{pattern: "/api/*", target: "http://x", request: "/api", strip: true, want: "/"},
		{pattern: "/api/*", target: "http://x", request: "/api/", strip: true, want: "/"},
		{pattern: "/api/*", target: "http://x/v2", request: "/api", strip: true, want: "/v2"},
		{pattern: "/api/*", target: "http://x/v2", request: "/api/", strip: true, want: "/v2/"},
		{pattern: "/api/*", target: "http://x/v2", request: "/api/a/b", strip: true, want: "/v2/a/b"},
		{pattern: "/api/{rest...}", target: "http://x/v2/{rest}/end", request: "/api/a/b", want: "/v2/a/b/end"},
		{pattern: "/api/{rest...}", target: "http://x/v2/{rest...}", request: "/api/a/b", want: "/v2/a/b"},
		{pattern: "/*", target: "http://x/base", request: "/", want: "/base/"},
		{pattern: "/exact", target: "http://x", request: "/exact", strip: true, want: "/"},
		{pattern: "/exact/", target: "http://x/y", request: "/exact/", strip: true, want: "/y"},
		{pattern: "/", target: "http://x/y", request: "/", strip: true, want: "/y"},
		{pattern: "/a/{id}", target: "http://x/y", request: "/a/5", now: "/b", strip: true, want: "/y/b"},
		{pattern: "/a/{id}", target: "http://x/y", request: "/a/5", now: "/ab/6", strip: true, want: "/y/ab/6"},
		{pattern: "/a/{id}", target: "http://x/y", request: "/a/5", now: "/a/6", strip: true, want: "/y/6"},
		{pattern: "/a/{id}", target: "http://x/y/{id}", request: "/a/5", now: "/b", want: "/y/5"},
		{pattern: "/*", target: "http://x/caf\u00e9", request: "/a", want: "/caf%C3%A9/a"},
	}
	for _, tt := range tests {
		t.Run(tt.pattern+" to "+tt.target+" for "+tt.request, func(t *testing.T) {
			t.Parallel()
			pattern, err := routing.ParsePattern(tt.pattern)
			if err != nil {
				t.Fatal(err)
			}
			target, err := proxy.ParseTarget(tt.target, pattern.ParamNames())
			if err != nil {
				t.Fatal(err)
			}
			now := tt.now
			if now == "" {
				now = tt.request
			}
			if got := target.Path(pattern, tt.request, now, tt.strip); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func FuzzParseTarget(f *testing.F) {
	for _, seed := range []string{"http://a/b", "https://[::1]:1/{id}", "h2c://x:1", "http://a:b@c", "http://%41/", "http://a/%2e%2e"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		target, err := proxy.ParseTarget(raw, []string{"id"})
		if err != nil {
			return
		}
		if strings.ContainsAny(target.Address+target.Host, "{}@/?# \t\r\n\\") {
			t.Errorf("%q gave address %q, host %q", raw, target.Address, target.Host)
		}
		pattern, err := routing.ParsePattern("/a/{id}")
		if err != nil {
			t.Fatal(err)
		}
		path := target.Path(pattern, "/a/x", "/a/x", false)
		if again, err := routing.CanonicalPath(path); err != nil || again.Text != path {
			t.Errorf("%q gave path %q, which is not canonical: %v", raw, path, err)
		}
	})
}
