package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"

	"github.com/caddyserver/caddy/v2"
	_ "github.com/caddyserver/caddy/v2/modules/caddyevents" // an app that caddy-ratelimit needs
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	_ "github.com/mholt/caddy-ratelimit" // the handler rate_limit

	_ "github.com/isekai-gateway/isekai/ratelimit" // the handler isekai_rate_limit
)

// startCaddy runs Caddy without a server, for handlers to be provisioned in. Only
// errors are logged: caddy-ratelimit logs every refusal, and writing that is not
// its limiter's cost.
func startCaddy() (caddy.Context, func(), error) {
	var config caddy.Config
	err := json.Unmarshal([]byte(`{
		"admin": {"disabled": true, "config": {"persist": false}},
		"logging": {"logs": {"default": {"level": "ERROR"}}},
		"apps": {"events": {}}
	}`), &config)
	if err != nil {
		return caddy.Context{}, nil, fmt.Errorf("reading Caddy's config: %w", err)
	}
	if err := caddy.Run(&config); err != nil {
		return caddy.Context{}, nil, fmt.Errorf("starting Caddy: %w", err)
	}
	return caddy.ActiveContext(), func() {
		if err := caddy.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, "stopping Caddy:", err)
		}
	}, nil
}

func handlers(ctx caddy.Context) []contender {
	const key = "{http.vars." + caddyhttp.ClientIPVarKey + "}"
	return []contender{
		handler(ctx, "isekai_rate_limit, headers none", "http.handlers.isekai_rate_limit", map[string]any{
			"name": "bench", "limit": limit, "window": window.String(), "key": key, "headers": "none",
		}),
		handler(ctx, "isekai_rate_limit", "http.handlers.isekai_rate_limit", map[string]any{
			"name": "bench", "limit": limit, "window": window.String(), "key": key,
		}),
		handler(ctx, named("caddy-ratelimit", "github.com/mholt/caddy-ratelimit"), "http.handlers.rate_limit", map[string]any{
			"rate_limits": map[string]any{"bench": map[string]any{
				"key": key, "max_events": limit, "window": window.String(),
			}},
		}),
	}
}

func handler(ctx caddy.Context, name, id string, config map[string]any) contender {
	return contender{
		name: name, group: groupHandler, ours: id == "http.handlers.isekai_rate_limit",
		start: func() (*instance, error) {
			raw, err := json.Marshal(config)
			if err != nil {
				return nil, fmt.Errorf("writing the config of %s: %w", name, err)
			}
			ctx, cancel := caddy.NewContext(ctx)
			module, err := ctx.LoadModuleByID(id, raw)
			if err != nil {
				cancel()
				return nil, fmt.Errorf("provisioning %s: %w", name, err)
			}
			h := module.(caddyhttp.MiddlewareHandler)
			return &instance{worker: func() decide { return server(h) }, stop: cancel}, nil
		},
	}
}

// server returns what serves requests by h, one after the other. Instead of making
// requests, which would cost more than deciding, it changes the client's address in
// one and gives it to h again.
func server(h caddyhttp.MiddlewareHandler) decide {
	vars := make(map[string]any)
	ctx := context.WithValue(context.Background(), caddyhttp.VarsCtxKey, vars)
	r := (&http.Request{
		Method: http.MethodGet, URL: &url.URL{Path: "/"}, Header: make(http.Header),
		Host: "example.com", RemoteAddr: "192.0.2.1:1234",
	}).WithContext(ctx)
	caddyhttp.NewTestReplacer(r) // what a server makes for each request
	w := &discard{header: make(http.Header)}
	admitted := false
	next := caddyhttp.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) error {
		admitted = true
		w.WriteHeader(http.StatusNoContent)
		return nil
	})
	return func(key string) bool {
		vars[caddyhttp.ClientIPVarKey] = key
		clear(w.header)
		admitted = false
		err := h.ServeHTTP(w, r, next)
		return admitted && err == nil
	}
}

// discard is a response that nobody reads.
type discard struct{ header http.Header }

// Header implements http.ResponseWriter.
func (d *discard) Header() http.Header { return d.header }

// Write implements http.ResponseWriter.
func (d *discard) Write(p []byte) (int, error) { return len(p), nil }

// WriteHeader implements http.ResponseWriter.
func (d *discard) WriteHeader(int) {}
