package main

import (
	"context"
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/isekai-gateway/isekai/pipeline"
	"github.com/isekai-gateway/isekai/ratelimit"
	"github.com/isekai-gateway/isekai/routing"
	"github.com/isekai-gateway/isekai/store"
)

// plugin answers without an upstream.
const plugin = `{"handler": "static_response", "status_code": 204}`

// server is one way in which a request is answered.
type server struct {
	name  string
	serve func(w http.ResponseWriter, r *http.Request) error
}

// servers are the plugin alone, and behind pipelines.
func servers(tb testing.TB) []server {
	tb.Helper()
	ctx, err := caddy.ProvisionContext(&caddy.Config{Admin: &caddy.AdminConfig{Disabled: true}})
	if err != nil {
		tb.Fatal(err)
	}
	alone := &caddyhttp.StaticResponse{StatusCode: caddyhttp.WeakString("204")}
	limits := ratelimit.New(ratelimit.Config{})
	set, err := pipeline.NewSet(ctx, pipeline.Options{
		TTL: time.Hour, CleanupInterval: time.Hour, MaxSize: 10, Limits: limits,
		Plugins: append([]string{"static_response"}, pipeline.DefaultPlugins...),
	})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		set.Close(true)
		limits.Close()
	})
	through := func(id int64, change func(*store.Route)) func(http.ResponseWriter, *http.Request) error {
		row := store.NewRoute("/x", "http://127.0.0.1:9")
		row.ID, row.Plugins = id, []json.RawMessage{json.RawMessage(plugin)}
		change(row)
		route, err := routing.Compile(row)
		if err != nil {
			tb.Fatal(err)
		}
		return func(w http.ResponseWriter, r *http.Request) error {
			p, _, err := set.Get(r.Context(), route)
			if err != nil {
				return err
			}
			defer p.Release()
			return p.Serve(w, r, &pipeline.Exchange{Path: "/x", RequestID: "id"})
		}
	}
	return []server{
		{"isekai, no policy", through(1, func(*store.Route) {})},
		{"isekai, a rate limit", through(2, func(row *store.Route) { row.RateLimit = 1_000_000_000 })},
		{"the plugin alone", func(w http.ResponseWriter, r *http.Request) error {
			return alone.ServeHTTP(w, r, caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return nil }))
		}},
	}
}

// discarder is an answer that nobody reads.
type discarder struct {
	header http.Header
	status int
}

func (d *discarder) Header() http.Header         { return d.header }
func (d *discarder) Write(p []byte) (int, error) { return len(p), nil }
func (d *discarder) WriteHeader(status int)      { d.status = status }

// prepare does what Caddy's server does before any handler.
func prepare(w http.ResponseWriter, r *http.Request, s *caddyhttp.Server) *http.Request {
	r = caddyhttp.PrepareRequest(r, caddy.NewReplacer(), w, s)
	caddyhttp.SetVar(r.Context(), caddyhttp.ClientIPVarKey, "192.0.2.1")
	return r
}

// BenchmarkPipeline answers requests, one after the other.
func BenchmarkPipeline(b *testing.B) {
	for _, lib := range servers(b) {
		b.Run("lib="+lib.name+"/op=request", func(b *testing.B) {
			original := newRequest(context.Background(), b, http.MethodGet, "api.example.com", "/x")
			original.RemoteAddr = "192.0.2.1:1000"
			w, s := &discarder{header: make(http.Header)}, new(caddyhttp.Server)
			b.ReportAllocs()
			for b.Loop() {
				clear(w.header)
				if err := lib.serve(w, prepare(w, original, s)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// Each of them answers what the plugin does.
func TestServers(t *testing.T) {
	t.Parallel()
	for _, lib := range servers(t) {
		w := &discarder{header: make(http.Header)}
		r := newRequest(t.Context(), t, http.MethodGet, "api.example.com", "/x")
		r.RemoteAddr = "192.0.2.1:1000"
		if err := lib.serve(w, prepare(w, r, new(caddyhttp.Server))); err != nil || w.status != http.StatusNoContent {
			t.Errorf("%s: %d, %v", lib.name, w.status, err)
		}
		limited := w.header.Get("RateLimit") != ""
		if want := lib.name == "isekai, a rate limit"; limited != want {
			t.Errorf("%s: fields about a limit: %t (%v)", lib.name, limited, w.header)
		}
	}
}
