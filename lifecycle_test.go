package isekai_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// holding is an upstream whose answers wait until released. It also echoes
// WebSockets.
type holding struct {
	*httptest.Server
	arrived chan struct{}
	release chan struct{}
}

func newHolding(t *testing.T) *holding {
	t.Helper()
	h := &holding{arrived: make(chan struct{}, 100), release: make(chan struct{})}
	h.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasSuffix(r.URL.Path, "/ws"):
			echoWebSocket(w, r)
			return
		case strings.HasSuffix(r.URL.Path, "/hold"):
			h.arrived <- struct{}{}
			select {
			case <-h.release:
			case <-r.Context().Done():
			}
		}
		fmt.Fprint(w, "done")
	}))
	t.Cleanup(h.Close)
	return h
}

func echoWebSocket(w http.ResponseWriter, r *http.Request) {
	conn, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer conn.CloseNow()
	for {
		kind, message, err := conn.Read(r.Context())
		if err != nil || conn.Write(r.Context(), kind, message) != nil {
			return
		}
	}
}

func (s *server) dial(path string) *websocket.Conn {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	conn, _, err := websocket.Dial(ctx, s.site+path, nil)
	if err != nil {
		s.t.Fatalf("dialling %s: %v", path, err)
	}
	s.t.Cleanup(func() { _ = conn.CloseNow() })
	return conn
}

// echoes checks that the connection is alive.
func echoes(t *testing.T, conn *websocket.Conn) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := conn.Write(ctx, websocket.MessageText, []byte("hello")); err != nil {
		return err
	}
	_, message, err := conn.Read(ctx)
	if err == nil && string(message) != "hello" {
		return fmt.Errorf("got %q", message)
	}
	return err
}

// background sends a request and returns its answer when it comes.
func (s *server) background(path string) <-chan string {
	out := make(chan string, 1)
	go func() {
		res, err := s.client.Get(s.site + path)
		if err != nil {
			out <- err.Error()
			return
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		out <- fmt.Sprintf("%d %s %v", res.StatusCode, body, err)
	}()
	return out
}

const answered = "200 done <nil>"

func TestReloadKeepsWhatIsRunning(t *testing.T) {
	s, upstream := start(t, nil), newHolding(t)
	s.create(route{"path": "/*", "target_url": upstream.URL, "rate_limit": 100, "timeout": 0})
	conn := s.dial("/ws")
	held := s.background("/hold")
	<-upstream.arrived
	for range 3 {
		if res := s.get("/x"); res.StatusCode != 200 {
			t.Fatalf("status %d", res.StatusCode)
		}
	}
	before := s.get("/x").Header.Get("RateLimit")

	for range 5 {
		if err := s.load(nil); err != nil {
			t.Fatal(err)
		}
	}
	after := s.get("/x").Header.Get("RateLimit")
	if remaining(t, after) != remaining(t, before)-1 {
		t.Errorf("the counters were %s before the reloads and %s after", before, after)
	}
	if err := echoes(t, conn); err != nil {
		t.Errorf("the WebSocket did not survive: %v", err)
	}
	close(upstream.release)
	if got := <-held; got != answered {
		t.Errorf("the request in flight got %s", got)
	}
}

// remaining is r of a RateLimit field.
func remaining(t *testing.T, field string) int {
	t.Helper()
	var r int
	if _, err := fmt.Sscanf(field, `"route";r=%d`, &r); err != nil {
		t.Fatalf("RateLimit %q: %v", field, err)
	}
	return r
}

func TestReloadWithAnotherStore(t *testing.T) {
	s, upstream := start(t, nil), newHolding(t)
	s.create(route{"path": "/hold", "target_url": upstream.URL})
	held := s.background("/hold")
	<-upstream.arrived

	s.dsn = "sqlite://" + filepath.Join(t.TempDir(), "other.db")
	if err := s.load(nil); err != nil {
		t.Fatal(err)
	}
	if res := s.get("/hold"); res.StatusCode != 404 {
		t.Errorf("the other store's route answers: %d", res.StatusCode)
	}
	close(upstream.release)
	if got := <-held; got != answered {
		t.Errorf("the request in flight got %s", got)
	}
}

func TestFailedReloadLeavesTheAdminAPIOnWhatRuns(t *testing.T) {
	s, upstream := start(t, nil), echo(t)
	failures := map[string]func(map[string]any){
		"at Provision": func(cfg map[string]any) { isekaiApp(cfg)["plugins"] = []string{"no_such_handler"} },
		"at Start": func(cfg map[string]any) {
			siteOf(cfg)["listen"] = []string{"203.0.113.1:1"}
		},
	}
	for name, edit := range failures {
		if err := s.load(edit); err == nil {
			t.Fatalf("%s: the reload succeeded", name)
		}
	}
	s.create(route{"path": "/new", "target_url": upstream.URL})
	if res := s.get("/new"); res.StatusCode != 200 {
		t.Errorf("the route made after the failed reloads: %d", res.StatusCode)
	}
}

func TestEditsDrain(t *testing.T) {
	s, upstream := start(t, func(cfg map[string]any) { isekaiApp(cfg)["drain_timeout"] = "300ms" }), newHolding(t)
	s.create(route{"path": "/edited/*", "target_url": upstream.URL, "timeout": 0})
	s.create(route{"path": "/other/*", "target_url": upstream.URL, "timeout": 0})
	edited, other := s.dial("/edited/ws"), s.dial("/other/ws")
	held := s.background("/edited/hold")
	<-upstream.arrived

	if res := s.write("PATCH", "/api/routes/1", route{"labels": route{"edit": "1"}}); res.StatusCode != 200 {
		t.Fatalf("%d %s", res.StatusCode, res.body)
	}
	close(upstream.release)
	if got := <-held; got != answered {
		t.Errorf("the request in flight got %s", got)
	}
	// The edited route's own stream ends after the drain time.
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, _, err := edited.Read(ctx); err == nil || ctx.Err() != nil {
		t.Errorf("the edited route's WebSocket was not closed: %v", err)
	}
	if err := echoes(t, other); err != nil {
		t.Errorf("another route's WebSocket: %v", err)
	}
	if err := echoes(t, s.dial("/edited/ws")); err != nil {
		t.Errorf("a new WebSocket of the edited route: %v", err)
	}
}

func TestEditsUnderLoadFailNoRequest(t *testing.T) {
	s, upstream := start(t, nil), echo(t)
	id := s.create(route{"path": "/*", "target_url": upstream.URL, "plugins": []any{
		map[string]any{"handler": "headers", "response": map[string]any{"set": map[string]any{"X-Edit": []string{"0"}}}},
	}})
	var failed, answers atomic.Int64
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for ctx.Err() == nil {
				res, err := s.client.Get(s.site + "/x")
				if err != nil {
					failed.Add(1)
					continue
				}
				_, _ = io.Copy(io.Discard, res.Body)
				_ = res.Body.Close()
				answers.Add(1)
				if res.StatusCode != 200 {
					failed.Add(1)
				}
			}
		})
	}
	for edit := range 100 {
		value := fmt.Sprint(edit)
		res := s.write("PATCH", fmt.Sprintf("/api/routes/%d", id), route{"plugins": []any{
			map[string]any{"handler": "headers", "response": map[string]any{"set": map[string]any{"X-Edit": []string{value}}}},
		}})
		if res.StatusCode != 200 {
			t.Fatalf("edit %d: %d %s", edit, res.StatusCode, res.body)
		}
		// A write is live when it returns.
		if got := s.get("/x").Header.Get("X-Edit"); got != value {
			t.Fatalf("after edit %s the answer says %s", value, got)
		}
	}
	stop()
	wg.Wait()
	if failed.Load() > 0 || answers.Load() == 0 {
		t.Errorf("%d of %d requests failed", failed.Load(), answers.Load())
	}
}

// cacheSize is the number of compiled routes.
func (s *server) cacheSize() int {
	s.t.Helper()
	var status struct{ Cache struct{ Size int } }
	if err := json.Unmarshal([]byte(s.do("GET", s.admin+"/api/status", "").body), &status); err != nil {
		s.t.Fatal(err)
	}
	return status.Cache.Size
}

func TestStreamsOutliveTheCacheAndReloads(t *testing.T) {
	short := func(cfg map[string]any) {
		isekaiApp(cfg)["cache"] = route{"ttl": "50ms", "cleanup_interval": "10ms"}
		isekaiApp(cfg)["drain_timeout"] = "50ms"
	}
	s, upstream := start(t, short), newHolding(t)
	s.create(route{"path": "/*", "target_url": upstream.URL, "timeout": 0})
	conn := s.dial("/ws")
	eventually(t, "the compiled route has left the cache", func() bool { return s.cacheSize() == 0 })
	if err := s.load(short); err != nil {
		t.Fatal(err)
	}
	// What follows the drain time, were it counted from either.
	time.Sleep(200 * time.Millisecond)
	if err := echoes(t, conn); err != nil {
		t.Fatalf("the route is as it was, but its WebSocket ended: %v", err)
	}

	// A change ends it, though neither cache nor configuration know it any more.
	if res := s.write("PATCH", "/api/routes/1", route{"timeout": 5}); res.StatusCode != 200 {
		t.Fatalf("%d %s", res.StatusCode, res.body)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, _, err := conn.Read(ctx); err == nil || ctx.Err() != nil {
		t.Errorf("the changed route's WebSocket was not closed: %v", err)
	}
}
