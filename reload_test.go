package isekai_test

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// gate is a handler at which a request, and the setting up of it, can be held.
type gate struct{}

var (
	gateServes     = newDoor() // holds requests with X-Hold
	gateProvisions = newDoor() // holds setting it up, once armed
)

// door lets everybody pass until it is closed; then one waits at it until let go.
type door struct {
	mu      sync.Mutex
	closed  bool
	arrived chan struct{}
	open    chan struct{}
}

func newDoor() *door { return &door{arrived: make(chan struct{}), open: make(chan struct{})} }

func (d *door) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
}

func (d *door) pass() {
	d.mu.Lock()
	closed := d.closed
	d.closed = false
	d.mu.Unlock()
	if closed {
		d.arrived <- struct{}{}
		<-d.open
	}
}

func init() { caddy.RegisterModule(gate{}) }

func (gate) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.test_gate", New: func() caddy.Module { return new(gate) }}
}

func (gate) Provision(caddy.Context) error {
	gateProvisions.pass()
	return nil
}

func (gate) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if r.Header.Get("X-Hold") != "" {
		gateServes.pass()
	}
	return next.ServeHTTP(w, r)
}

// TestLateRequest holds a request before the gateway's handler until the handler's
// configuration has been replaced and cleaned up.
func TestLateRequest(t *testing.T) {
	gated := func(cfg map[string]any) {
		siteOf(cfg)["routes"] = []any{map[string]any{"handle": []any{
			map[string]any{"handler": "test_gate"}, map[string]any{"handler": "isekai"},
		}}}
	}
	for _, tt := range []struct {
		name string
		next func(cfg map[string]any) // the configuration after it
	}{
		{"same store", func(map[string]any) {}},
		{"another store", func(cfg map[string]any) {
			isekaiApp(cfg)["store"].(map[string]any)["dsn"] = "sqlite://" + t.TempDir() + "/other.db"
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, upstream := start(t, gated), newHolding(t)
			s.create(route{"path": "/*", "target_url": upstream.URL, "rate_limit": 100})
			gateServes.close()
			answer := make(chan response, 1)
			go func() { answer <- s.get("/x", "X-Hold", "1") }()
			<-gateServes.arrived
			if err := s.load(func(cfg map[string]any) { gated(cfg); tt.next(cfg) }); err != nil {
				t.Fatal(err)
			}
			gateServes.open <- struct{}{}
			if res := <-answer; res.StatusCode != http.StatusOK || res.body != "done" {
				t.Errorf("the late request got %d %s", res.StatusCode, res.body)
			}
			// What runs is still whole: it writes, and sees what was written. The end of a
			// request would close it in the background, so that one try is not enough.
			for i := range 20 {
				path := fmt.Sprintf("/after/%d", i)
				s.create(route{"path": path, "target_url": upstream.URL})
				if res := s.get(path); res.StatusCode != http.StatusOK {
					t.Fatalf("a new route: %d %s", res.StatusCode, res.body)
				}
			}
		})
	}
}

// TestReloadsUnderHTTP2 reloads while clients ask over connections that Caddy goes on
// serving for a moment after it has cleaned up.
func TestReloadsUnderHTTP2(t *testing.T) {
	edit := func(cfg map[string]any) { siteOf(cfg)["protocols"] = []string{"h1", "h2c"} }
	s, upstream := start(t, edit), newHolding(t)
	s.create(route{"path": "/*", "target_url": upstream.URL})
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: &protocols}
	defer transport.CloseIdleConnections()
	ctx, stop := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	for range 16 {
		clients.Go(func() {
			for ctx.Err() == nil {
				req, _ := http.NewRequestWithContext(ctx, http.MethodGet, s.site+"/x", nil)
				if res, err := transport.RoundTrip(req); err == nil {
					_ = res.Body.Close()
				}
			}
		})
	}
	for i := range 20 {
		if err := s.load(edit); err != nil {
			t.Fatal(err)
		}
		s.create(route{"path": fmt.Sprintf("/%d", i), "target_url": upstream.URL})
	}
	stop()
	clients.Wait()
}

// TestStreamOfDroppedRoute holds a request between the match of its route and the
// compiling of that, while the route is deleted.
func TestStreamOfDroppedRoute(t *testing.T) {
	s, upstream := start(t, func(cfg map[string]any) {
		isekaiApp(cfg)["drain_timeout"] = "100ms"
		isekaiApp(cfg)["plugins"] = []string{"test_gate"}
	}), newHolding(t)
	id := s.create(route{"path": "/*", "target_url": upstream.URL, "timeout": 0, "plugins": []any{route{"handler": "test_gate"}}})
	gateProvisions.close()
	deleted := make(chan struct{})
	go func() {
		defer close(deleted)
		<-gateProvisions.arrived
		s.write("DELETE", fmt.Sprintf("/api/routes/%d", id), nil)
		gateProvisions.open <- struct{}{}
	}()
	conn := s.dial("/ws")
	<-deleted
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, _, err := conn.Read(ctx); err == nil || ctx.Err() != nil {
		t.Errorf("the stream of a route that is gone was not closed: %v", err)
	}
}
