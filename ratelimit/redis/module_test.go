package redis_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/alicebob/miniredis/v2"
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	_ "github.com/caddyserver/caddy/v2/modules/standard"
	"github.com/google/go-cmp/cmp"

	_ "github.com/isekai-gateway/isekai/ratelimit/postgres"
)

// adapt returns the first handler of a site.
func adapt(t *testing.T, options string) (map[string]any, error) {
	t.Helper()
	text := ":8080 {\n isekai_rate_limit 5 1m {\n name zone\n" + options + "\n}\n}"
	encoded, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(text), map[string]any{"filename": "Caddyfile"})
	if err != nil {
		return nil, err
	}
	var config struct {
		Apps struct {
			HTTP struct {
				Servers map[string]struct {
					Routes []struct{ Handle []map[string]any }
				}
			}
		}
	}
	if err := json.Unmarshal(encoded, &config); err != nil {
		t.Fatal(err)
	}
	return config.Apps.HTTP.Servers["srv0"].Routes[0].Handle[0], nil
}

func TestCaddyfile(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		options string
		want    map[string]any
	}{
		"memory": {"backend memory", map[string]any{"backend": map[string]any{"name": "memory"}}},
		"postgres": {"backend postgres {env.LIMITS} {\n max_conns 4\n }\n on_error deny\n timeout 80ms", map[string]any{
			"backend": map[string]any{"name": "postgres", "dsn": "{env.LIMITS}", "max_conns": 4.0}, "on_error": "deny", "timeout": 8e7,
		}},
		"redis": {"backend redis one:6379 two:6379 {\n username me\n password {env.P}\n prefix p:\n tls\n tls_ca ca.pem\n tls_server_name n\n tls_cert c.pem\n" +
			" tls_key k.pem\n sentinel_master m\n sentinel_username su\n sentinel_password {env.S}\n db 2\n}", map[string]any{
			"backend": map[string]any{
				"name": "redis", "addresses": []any{"one:6379", "two:6379"}, "username": "me", "password": "{env.P}", "prefix": "p:", "tls": true,
				"tls_ca": "ca.pem", "tls_server_name": "n", "tls_cert": "c.pem", "tls_key": "k.pem", "sentinel_master": "m",
				"sentinel_username": "su", "sentinel_password": "{env.S}", "db": 2.0,
			},
		}},
	} {
		got, err := adapt(t, c.options)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		maps.Copy(c.want, map[string]any{"handler": "isekai_rate_limit", "name": "zone", "limit": 5.0, "window": 6e10})
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestCaddyfileErrors(t *testing.T) {
	t.Parallel()
	for options, want := range map[string]string{
		"backend":                                             "Caddyfile:4",
		"backend etcd":                                        `unknown rate limit backend "etcd"`,
		"backend memory x":                                    "Caddyfile:4",
		"backend redis":                                       "Caddyfile:4",
		"backend redis a:1 {\n db x\n}":                       "db must be a whole number",
		"backend redis a:1 {\n colour blue\n}":                "unrecognized option: colour, at Caddyfile:5",
		"backend redis a:1 {\n password\n}":                   "Caddyfile:5",
		"backend postgres x {\n max_conns 0\n}":               "max_conns must be",
		"backend postgres x {\n max_conns 1\n max_conns 2\n}": "max_conns stands twice, at Caddyfile:6",
		"backend redis x {\n db 1\n db 2\n}":                  "db stands twice, at Caddyfile:6",
		"backend postgres":                                    "Caddyfile:4",
		"backend memory\n backend redis a:1":                  "backend is given twice, at Caddyfile:5",
		"on_error panic":                                      `on_error "panic"`,
		"timeout soon":                                        `timeout "soon"`,
		"timeout 2h":                                          `timeout "2h"`,
		"backend postgres postgres://h/x\n nope":              "unrecognized option: nope",
	} {
		if _, err := adapt(t, options); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", options, err)
		}
	}
}

// load runs the one Caddy of the process with a handler; its tests do not run in parallel.
func load(t *testing.T, port int, handler map[string]any) error {
	t.Helper()
	config := map[string]any{
		"admin":   map[string]any{"disabled": true, "config": map[string]any{"persist": false}},
		"logging": map[string]any{"logs": map[string]any{"default": map[string]any{"writer": map[string]any{"output": "discard"}}}},
		"apps": map[string]any{
			"tls": map[string]any{"disable_storage_check": true, "disable_storage_clean": true},
			"http": map[string]any{"servers": map[string]any{"s": map[string]any{
				"listen": []string{fmt.Sprintf("127.0.0.1:%d", port)}, "automatic_https": map[string]any{"disable": true},
				"routes": []any{map[string]any{"handle": []any{handler, map[string]any{"handler": "static_response"}}}},
			}}},
		},
	}
	encoded, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	return caddy.Load(encoded, true)
}

func TestHandler(t *testing.T) {
	server := miniredis.RunT(t)
	address := server.Addr()
	server.RequireAuth("s3cret")
	t.Setenv("TEST_LIMIT_PASSWORD", "s3cret")
	t.Cleanup(func() {
		if err := caddy.Stop(); err != nil {
			t.Error(err)
		}
	})
	client := &http.Client{Transport: new(http.Transport)}
	t.Cleanup(client.CloseIdleConnections)
	port := 0
	serve := func(zone string, change map[string]any) {
		t.Helper()
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		port = l.Addr().(*net.TCPAddr).Port
		l.Close()
		handler := map[string]any{
			"handler": "isekai_rate_limit", "name": zone, "limit": 2, "window": "24h", "timeout": "30s",
			"backend": map[string]any{"name": "redis", "addresses": []string{address}, "password": "{env.TEST_LIMIT_PASSWORD}"},
		}
		maps.Copy(handler, change)
		if err := load(t, port, handler); err != nil {
			t.Fatal(err)
		}
	}
	want := func(statuses ...int) {
		t.Helper()
		for i, want := range statuses {
			resp, err := client.Get(fmt.Sprintf("http://127.0.0.1:%d/", port))
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != want {
				t.Errorf("request %d is answered %s, want %d", i+1, resp.Status, want)
			}
			if want != http.StatusOK && resp.Header.Get("Retry-After") == "" {
				t.Errorf("a %d has no Retry-After", want)
			}
		}
	}
	serve("one", nil)
	want(200, 200, 429)
	serve("other", nil)
	want(200, 200, 429)
	// The server has what is used, not the zone.
	serve("one", map[string]any{"limit": 3})
	want(200, 429)

	server.Close()
	serve("one", map[string]any{"on_error": "deny"})
	want(503, 503)
	serve("one", map[string]any{"on_error": "allow"})
	want(200, 200, 200, 200)
	serve("third", nil)
	want(200, 200, 429)
	serve("one", map[string]any{"on_error": "deny", "dry_run": true})
	want(200, 200, 200)

	for what, handler := range map[string]map[string]any{
		"must be host:port":          {"backend": map[string]any{"name": "redis", "addresses": []string{"nowhere"}}},
		"addresses is missing":       {"backend": map[string]any{"name": "redis"}},
		"db must not be negative":    {"backend": map[string]any{"name": "redis", "addresses": []string{"a:1"}, "db": -1}},
		"those of a cluster":         {"backend": map[string]any{"name": "redis", "addresses": []string{"a:1", "b:1"}, "db": 1}},
		"reading tls_ca":             {"backend": map[string]any{"name": "redis", "addresses": []string{"a:1"}, "tls_ca": "/nonexistent"}},
		"reading tls_cert":           {"backend": map[string]any{"name": "redis", "addresses": []string{"a:1"}, "tls_cert": "/nonexistent"}},
		"dsn is missing":             {"backend": map[string]any{"name": "postgres", "dsn": "{env.TEST_LIMIT_NONE}"}},
		"max_conns must not be":      {"backend": map[string]any{"name": "postgres", "dsn": "postgres://h/x", "max_conns": -1}},
		"DSN cannot be parsed":       {"backend": map[string]any{"name": "postgres", "dsn": "postgres://u:s3cret@h:port/x"}},
		`unknown rate limit backend`: {"backend": map[string]any{"name": "etcd"}},
		"backend has no name":        {"backend": map[string]any{}},
		`on_error "x"`:               {"on_error": "x"},
		"timeout -1s":                {"timeout": "-1s"},
	} {
		handler["handler"], handler["name"], handler["limit"], handler["window"] = "isekai_rate_limit", "z", 1, "1m"
		err := load(t, port, handler)
		if err == nil || !strings.Contains(err.Error(), what) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("want %q: %v", what, err)
		}
	}
}
