package e2e_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/coder/websocket"
)

// counters returns the request counters of /api/status.
func (g *gateway) counters() map[string]int64 {
	g.t.Helper()
	var status struct {
		Requests map[string]int64 `json:"requests"`
	}
	g.call(http.MethodGet, "/api/status", nil).decode(g.t, &status)
	return status.Requests
}

func wantBusy(t *testing.T, a answer, says string) {
	t.Helper()
	p := wantProblem(t, a, http.StatusServiceUnavailable)
	if a.header.Get("Retry-After") != "1" || !strings.HasSuffix(p.Type, "#temporary-reduced-capacity") || !strings.Contains(p.Detail, says) {
		t.Errorf("the answer is %s with %v", a, a.header)
	}
}

func TestMaxConcurrentPerRoute(t *testing.T) {
	t.Parallel()
	g := startGateway(t, settings{})
	held, release := make(chan struct{}, 8), make(chan struct{})
	upstream := newUpstream(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/hold") {
			held <- struct{}{}
			<-release
		}
		_, _ = io.WriteString(w, "done")
	})
	r := g.create(route{Path: "/a/*", TargetURL: upstream.URL, Timeout: forever, RateLimit: 100, Limits: map[string]any{"max_concurrent": 2}})
	g.create(route{Path: "/b", TargetURL: upstream.URL, Limits: map[string]any{"max_concurrent": 1}})
	g.create(route{Path: "/ws", TargetURL: echoUpstream(t), Timeout: forever, Limits: map[string]any{"max_concurrent": 1}})

	done := make(chan error, 8)
	hold := func() {
		t.Helper()
		go func() { done <- g.checkBody("/a/hold", "done") }()
		await(t, held, "a request is held")
	}
	const says = "of this route"
	hold()
	g.wantBody("/a/x", "done")
	hold()
	a := g.send(http.MethodGet, "/a/x")
	wantBusy(t, a, says)
	g.wantBody("/b", "done") // another route has a count of its own

	// The count outlives an edit and a reload.
	g.patch(r.ID, map[string]any{"labels": map[string]string{"edited": "yes"}})
	wantBusy(t, g.send(http.MethodGet, "/a/x"), says)
	if err := g.reload(); err != nil {
		t.Fatal(err)
	}
	g.waitReady()
	wantBusy(t, g.send(http.MethodGet, "/a/x"), says)
	g.patch(r.ID, map[string]any{"limits": map[string]any{"max_concurrent": 3}})
	g.wantBody("/a/x", "done")
	hold()
	wantBusy(t, g.send(http.MethodGet, "/a/x"), says)
	g.patch(r.ID, map[string]any{"limits": map[string]any{"max_concurrent": 1}})
	wantBusy(t, g.send(http.MethodGet, "/a/x"), says)
	g.patch(r.ID, map[string]any{"limits": nil})
	g.wantBody("/a/x", "done")
	g.patch(r.ID, map[string]any{"limits": map[string]any{"max_concurrent": 3}})
	wantBusy(t, g.send(http.MethodGet, "/a/x"), says)
	close(release)
	for range 3 {
		if err := await(t, done, "a held request is answered"); err != nil {
			t.Error(err)
		}
	}
	eventually(t, callTimeout, "the requests are over", func() error { return g.checkBody("/a/x", "done") })

	// A WebSocket counts for as long as it is open.
	conn := g.dialWebSocket("/ws")
	if err := echoText(conn); err != nil {
		t.Fatal(err)
	}
	wantBusy(t, g.send(http.MethodGet, "/ws"), says)
	if err := echoText(conn); err != nil {
		t.Errorf("the WebSocket that was there: %v", err)
	}
	if got := g.counters(); got["shed"] != 7 || got["failed"] != 7 {
		t.Errorf("the counters are %v, want 7 shed of 7 failed", got)
	}
	_ = conn.Close(websocket.StatusNormalClosure, "")
	eventually(t, callTimeout, "the WebSocket's place is free", func() error {
		a, err := g.trySend(http.MethodGet, "/ws")
		if err == nil && a.status == http.StatusServiceUnavailable {
			err = fmt.Errorf("it is answered %s", a)
		}
		return err
	})
}

func TestMaxConcurrentIsCounted(t *testing.T) {
	t.Parallel()
	g := startGateway(t, settings{options: "max_concurrent 1"})
	held, release := make(chan struct{}, 1), make(chan struct{})
	g.create(route{Path: "/hold", TargetURL: newUpstream(t, func(http.ResponseWriter, *http.Request) {
		held <- struct{}{}
		<-release
	}).URL})
	done := make(chan error, 1)
	go func() {
		_, err := g.trySend(http.MethodGet, "/hold")
		done <- err
	}()
	await(t, held, "a request is held")
	for range 3 {
		wantBusy(t, g.send(http.MethodGet, "/hold"), "in flight")
	}
	close(release)
	if err := await(t, done, "the held request is answered"); err != nil {
		t.Error(err)
	}
	if got := g.counters(); got["shed"] != 3 || got["failed"] != 3 || got["total"] != 4 {
		t.Errorf("the counters are %v", got)
	}
}

func TestRefusedLimits(t *testing.T) {
	t.Parallel()
	g := startGateway(t, settings{})
	for name, value := range map[string]any{
		"body_max": -2, "body_max ": int64(1)<<40 + 1, "body_max  ": "10MB", "body_max   ": 0.5,
		"max_concurrent": -1, "max_concurrent ": 1_000_001,
		"cost": 0, "cost ": 1_000_001, "headers": "both", "dry_run": "yes",
	} {
		name = strings.TrimSpace(name)
		p := g.refused(route{Path: "/x", TargetURL: "http://10.0.0.1", Limits: map[string]any{name: value}}, http.StatusUnprocessableEntity)
		if len(p.Errors) != 1 || p.Errors[0].Location != "body.limits."+name {
			t.Errorf("%s %v: the errors are %+v", name, value, p.Errors)
		}
	}
}
