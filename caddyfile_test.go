package isekai_test

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/google/go-cmp/cmp"
)

func adapt(t *testing.T, caddyfile string) (map[string]any, error) {
	t.Helper()
	encoded, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(caddyfile), map[string]any{"filename": "Caddyfile"})
	if err != nil {
		return nil, err
	}
	var cfg map[string]any
	if err := json.Unmarshal(encoded, &cfg); err != nil {
		t.Fatal(err)
	}
	return cfg, nil
}

func TestCaddyfileApp(t *testing.T) {
	t.Parallel()
	cfg, err := adapt(t, `{
	isekai {
		store {env.ISEKAI_DATABASE_URL} {
			listen_dsn {env.ISEKAI_LISTEN_URL}
			max_conns 8
			connect_timeout 2s
			query_timeout 3s
			poll_interval 250ms
		}
		seed routes.json
		snapshot /var/lib/isekai/routes.json
		snapshot_key {env.ISEKAI_SNAPSHOT_KEY}
		cache {
			ttl 10m
			cleanup_interval 30s
			max_size 500
		}
		request_log {
			sample 0.5
			retention 30d
			queue 1000
			batch 100
			flush_interval 2s
		}
		plugins headers rewrite
		rate_limit {
			backend postgres {env.LIMITS_URL} {
				max_conns 4
			}
			on_error deny
			timeout 20ms
			headers legacy
		}
		targets {
			allow 10.0.0.0/8 192.168.1.1
			deny 10.1.0.0/16
		}
		history_retention 30d
		health_interval 10s
		stats_interval 1d
		drain_timeout 1m
		max_concurrent 100
		fast_lane off
		gc_headroom 16MiB
		body_max 10MB
	}
}`)
	if err != nil {
		t.Fatal(err)
	}
	second := float64(1e9)
	want := map[string]any{"isekai": map[string]any{
		// The placeholder stays: what it stands for must not be in the configuration.
		"store": map[string]any{
			"dsn": "{env.ISEKAI_DATABASE_URL}", "max_conns": 8.0, "listen_dsn": "{env.ISEKAI_LISTEN_URL}",
			"connect_timeout": 2 * second, "query_timeout": 3 * second, "poll_interval": second / 4,
		},
		"seed":         "routes.json",
		"snapshot":     "/var/lib/isekai/routes.json",
		"snapshot_key": "{env.ISEKAI_SNAPSHOT_KEY}",
		"request_log": map[string]any{
			"sample": 0.5, "retention": 30 * 86400 * second, "queue": 1000.0, "batch": 100.0, "flush_interval": 2 * second,
		},
		"cache":   map[string]any{"ttl": 600 * second, "cleanup_interval": 30 * second, "max_size": 500.0},
		"plugins": []any{"headers", "rewrite"},
		"rate_limit": map[string]any{
			"backend":  map[string]any{"name": "postgres", "dsn": "{env.LIMITS_URL}", "max_conns": 4.0},
			"on_error": "deny", "timeout": second / 50, "headers": "legacy",
		},
		"targets":           map[string]any{"allow": []any{"10.0.0.0/8", "192.168.1.1"}, "deny": []any{"10.1.0.0/16"}},
		"history_retention": 30 * 24 * 3600 * second,
		"health_interval":   10 * second,
		"stats_interval":    86400 * second,
		"drain_timeout":     60 * second,
		"max_concurrent":    100.0,
		"fast_lane":         false,
		"gc_headroom":       float64(16 << 20),
		"body_max":          10e6,
	}}
	if diff := cmp.Diff(want, cfg["apps"]); diff != "" {
		t.Error(diff)
	}
}

func TestCaddyfileHandlerComesBeforeRespond(t *testing.T) {
	t.Parallel()
	cfg, err := adapt(t, `:8080 {
	respond "fallback"
	isekai /api/* {
		pass_thru
		health_path /healthz
	}
	header X-First yes
}`)
	if err != nil {
		t.Fatal(err)
	}
	server := cfg["apps"].(map[string]any)["http"].(map[string]any)["servers"].(map[string]any)["srv0"].(map[string]any)
	var handlers []any
	for _, r := range server["routes"].([]any) {
		handlers = append(handlers, r.(map[string]any)["handle"].([]any)...)
	}
	want := []any{
		map[string]any{"handler": "headers", "response": map[string]any{"set": map[string]any{"X-First": []any{"yes"}}}},
		map[string]any{"handler": "isekai", "pass_thru": true, "health_path": "/healthz"},
		map[string]any{"handler": "static_response", "body": "fallback"},
	}
	if diff := cmp.Diff(want, handlers); diff != "" {
		t.Error(diff)
	}
}

func TestCaddyfileErrorsNameTheirLine(t *testing.T) {
	t.Parallel()
	app := func(lines string) string { return "{\n\tisekai {\n" + lines + "\n\t}\n}" }
	tests := map[string]struct{ caddyfile, want string }{
		"unknown limit style": {app("\t\trate_limit {\n\t\t\theaders loud\n\t\t}"), `headers "loud": must be ietf, legacy or none, at Caddyfile:4`},
		"no backend":          {app("\t\trate_limit {\n\t\t\tbackend etcd\n\t\t}"), `unknown rate limit backend "etcd": must be memory, store, postgres or redis, at Caddyfile:4`},
		"redis not built in":  {app("\t\trate_limit {\n\t\t\tbackend redis a:1\n\t\t}"), "rate limit backend redis is not built in"},
		"two backends":        {app("\t\trate_limit {\n\t\t\tbackend store\n\t\t\tbackend store\n\t\t}"), "option backend stands twice"},
		"unknown option":      {app("\t\tdns x"), "unrecognized option: dns, at Caddyfile:3"},
		"unknown in a block":  {app("\t\tcache {\n\t\t\tsize 5\n\t\t}"), "unrecognized option: size, at Caddyfile:4"},
		"argument of isekai":  {"{\n\tisekai on\n}", "at Caddyfile:2"},
		"twice":               {app("\t\tseed a\n\t\tseed b"), "option seed stands twice, at Caddyfile:4"},
		"two apps":            {"{\n\tisekai\n\tisekai\n}", "only once, at Caddyfile:3"},
		"no dsn":              {app("\t\tstore"), "at Caddyfile:3"},
		"two dsns":            {app("\t\tstore a b"), "at Caddyfile:3"},
		"not a number":        {app("\t\tmax_concurrent many"), `max_concurrent must be a whole number, not "many", at Caddyfile:3`},
		"negative number":     {app("\t\tmax_concurrent -1"), "whole number"},
		"neither on nor off":  {app("\t\tfast_lane maybe"), `fast_lane must be on or off, not "maybe", at Caddyfile:3`},
		"no headroom":         {app("\t\tgc_headroom"), "wrong argument count"},
		"not a headroom":      {app("\t\tgc_headroom on"), `gc_headroom must be a size such as 10MB or 64KiB, not "on", at Caddyfile:3`},
		"two headrooms":       {app("\t\tgc_headroom off off"), "wrong argument count"},
		"not a size":          {app("\t\tbody_max large"), `body_max must be a size such as 10MB or 64KiB, not "large", at Caddyfile:3`},
		"zero size":           {app("\t\tbody_max 0"), "must be a size"},
		"negative size":       {app("\t\tbody_max -1"), "must be a size"},
		"enormous size":       {app("\t\tbody_max 10EB"), "must be a size"},
		"no retention":        {app("\t\thistory_retention ever"), `history_retention must be a duration such as 90d, or 0 to keep all, not "ever", at Caddyfile:3`},
		"not a duration":      {app("\t\thealth_interval soon"), `health_interval must be a duration such as 30s, not "soon", at Caddyfile:3`},
		"zero duration":       {app("\t\tstats_interval 0s"), "must be a duration"},
		"no plugins":          {app("\t\tplugins"), "at Caddyfile:3"},
		"matcher for options": {":80 {\n\tisekai {\n\t\tfoo\n\t}\n}", "unrecognized option: foo, at Caddyfile:3"},
		"argument of option":  {":80 {\n\tisekai {\n\t\tpass_thru yes\n\t}\n}", "at Caddyfile:3"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg, err := adapt(t, tt.caddyfile)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, %v; want an error with %q", cfg, err, tt.want)
			}
		})
	}
}

func TestBadSettingsAreRefused(t *testing.T) {
	tests := map[string]struct {
		edit func(cfg map[string]any)
		want string
	}{
		"unknown plugin":    {func(cfg map[string]any) { isekaiApp(cfg)["plugins"] = []string{"nope"} }, `plugin "nope" is not`},
		"bad range":         {func(cfg map[string]any) { isekaiApp(cfg)["targets"] = route{"deny": []string{"ten"}} }, "targets.deny"},
		"negative":          {func(cfg map[string]any) { isekaiApp(cfg)["max_concurrent"] = -1 }, "max_concurrent must not be negative"},
		"negative headroom": {func(cfg map[string]any) { isekaiApp(cfg)["gc_headroom"] = -1 }, "gc_headroom must not be negative"},
		"negative size":     {func(cfg map[string]any) { isekaiApp(cfg)["body_max"] = -1 }, "body_max must not be negative"},
		"huge queue":        {func(cfg map[string]any) { isekaiApp(cfg)["request_log"] = route{"queue": 1 << 50} }, "request_log.queue must be at most 10000000"},
		"huge headroom":     {func(cfg map[string]any) { isekaiApp(cfg)["gc_headroom"] = 1 << 50 }, "gc_headroom must be at most 64 GiB"},
		"nanoseconds":       {func(cfg map[string]any) { isekaiApp(cfg)["health_interval"] = 30 }, "health_interval must be at least 1ms, not 30ns"},
		"negative time":     {func(cfg map[string]any) { isekaiApp(cfg)["drain_timeout"] = -1 }, "drain_timeout must not be negative"},
		"bad DSN":           {func(cfg map[string]any) { isekaiApp(cfg)["store"] = route{"dsn": "mysql://x"} }, "opening store"},
		"bad backend":       {func(cfg map[string]any) { isekaiApp(cfg)["rate_limit"] = route{"backend": route{"name": "etcd"}} }, "rate_limit: unknown rate limit backend"},
		"not shared":        {func(cfg map[string]any) { isekaiApp(cfg)["rate_limit"] = route{"backend": route{"name": "store"}} }, "needs a store in PostgreSQL"},
		"bad on_error":      {func(cfg map[string]any) { isekaiApp(cfg)["rate_limit"] = route{"on_error": "x"} }, "rate_limit: on_error"},
		"bad limit style":   {func(cfg map[string]any) { isekaiApp(cfg)["rate_limit"] = route{"headers": "x"} }, "rate_limit.headers"},
		"missing seed":      {func(cfg map[string]any) { isekaiApp(cfg)["seed"] = "/no/such/file" }, "reading seed file"},
		"handler, no app":   {func(cfg map[string]any) { delete(cfg["apps"].(map[string]any), "isekai") }, "needs the isekai app"},
		"bad health path": {func(cfg map[string]any) {
			siteOf(cfg)["routes"] = handle(route{"handler": "isekai", "health_path": "up"})
		}, "health_path must start with a slash"},
		"unknown property": {func(cfg map[string]any) { isekaiApp(cfg)["colour"] = "red" }, "unknown field"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := start(t, nil)
			s.dsn += "2" // so that no gateway is there already
			if err := s.load(tt.edit); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
}

// handle is the routes of a site with these handlers.
func handle(handlers ...any) []any {
	return []any{map[string]any{"handle": handlers}}
}

// The example's servers have nothing switched on that costs each request, and what
// saves something.
func TestExampleServersAreLean(t *testing.T) {
	t.Parallel()
	content, err := os.ReadFile("Caddyfile.example")
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := adapt(t, string(content))
	if err != nil {
		t.Fatal(err)
	}
	app := cfg["apps"].(map[string]any)["http"].(map[string]any)
	if app["metrics"] != nil {
		t.Error("Caddy's metrics are on")
	}
	for name, server := range app["servers"].(map[string]any) {
		server := server.(map[string]any)
		if idle, _ := server["read_idle_timeout"].(float64); idle >= 0 {
			t.Errorf("%s: bodies are wrapped: read_idle_timeout %v", name, server["read_idle_timeout"])
		}
		if server["logs"] != nil || server["metrics"] != nil {
			t.Errorf("%s has an access log or metrics: %v, %v", name, server["logs"], server["metrics"])
		}
	}
}

func TestCaddyfileWithoutHeadroom(t *testing.T) {
	t.Parallel()
	cfg, err := adapt(t, "{\n\tisekai {\n\t\tgc_headroom off\n\t}\n}\n:8080 {\n\tisekai\n}\n")
	if err != nil {
		t.Fatal(err)
	}
	if got := isekaiApp(cfg)["gc_headroom"]; got != 0.0 {
		t.Errorf("gc_headroom is %v", got)
	}
}
