package api_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/isekai-gateway/isekai/api"
	"github.com/isekai-gateway/isekai/gateway"
	"github.com/isekai-gateway/isekai/store"
)

const anyRoute = `{"path": "/new", "target_url": "http://x"}`

func TestUnknownPaths(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	for _, path := range []string{"/", "/api", "/api/", "/api/routes/", "/api/routes/1/x", "/api/nothing", "/healthz", "/docs", "/openapi.json", "/schemas/Route.json", "/api/openapi.yaml"} {
		for _, method := range []string{"GET", "POST", "BREW"} {
			n.do(t, method, path, "").want(404)
		}
	}
}

func TestMethodNotAllowed(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	for path, allow := range map[string]string{
		"/health":           "GET, HEAD",
		"/api/status":       "GET, HEAD",
		"/api/openapi.json": "GET, HEAD",
		"/api/routes":       "GET, HEAD, POST",
		"/api/routes/1":     "GET, HEAD, PUT, PATCH, DELETE",
	} {
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"} {
			if slices.Contains(strings.Split(allow, ", "), method) {
				continue
			}
			if got := n.do(t, method, path, "").want(405).header.Get("Allow"); got != allow {
				t.Errorf("%s %s: Allow is %q, want %q", method, path, got, allow)
			}
		}
	}
}

// TestStoreDown: reads go on from memory, writes say so, and no word of the database
// reaches the client.
func TestStoreDown(t *testing.T) {
	t.Parallel()
	core, logs := observer.New(zapcore.WarnLevel)
	n := newNode(t, func(c *api.Config) { c.Log = func() *zap.Logger { return zap.New(core) } })
	n.create(t, "/a")
	if err := n.Store().Close(); err != nil {
		t.Fatal(err)
	}
	n.do(t, "GET", "/api/routes", "").want(200)
	n.do(t, "GET", "/api/routes/1", "").want(200)
	n.do(t, "GET", "/api/routes/2", "").want(404)
	for _, a := range []answer{
		n.do(t, "POST", "/api/routes", anyRoute),
		n.do(t, "PUT", "/api/routes/1", anyRoute),
		n.do(t, "PUT", "/api/routes/2", anyRoute),
		n.do(t, "PATCH", "/api/routes/1", `{"timeout": 1}`),
		n.do(t, "DELETE", "/api/routes/1", ""),
	} {
		a.want(503)
		if a.header.Get("Retry-After") == "" {
			t.Errorf("%s: no Retry-After", a.what)
		}
		if strings.Contains(string(a.text), "closed") || a.object()["errors"] != nil {
			t.Errorf("%s: the cause reached the client: %s", a.what, a.text)
		}
	}
	if logs.FilterMessageSnippet("store").Len() != 5 {
		t.Errorf("the causes are not in the log: %v", logs.All())
	}
	a := n.do(t, "GET", "/health", "").want(200).object()
	if reasons, _ := a["reasons"].([]any); a["status"] != "degraded" || len(reasons) != 1 {
		t.Errorf("health is %v", a)
	}
	if got := n.do(t, "GET", "/api/status", "").want(200).object(); got["status"] != "degraded" || got["store"].(object)["up"] != false {
		t.Errorf("status is %v", got)
	}
}

func TestNotReady(t *testing.T) {
	t.Parallel()
	// Nothing listens on port 1.
	n := serve(t, openGateway(t, "postgres://user:secret@127.0.0.1:1/none?connect_timeout=1"))
	if got := n.do(t, "GET", "/health", "").want(503).object(); got["status"] != "not_ready" || got["reasons"] == nil {
		t.Errorf("health is %v", got)
	}
	n.do(t, "GET", "/api/status", "").want(200)
	n.do(t, "GET", "/api/openapi.json", "").want(200)
	for _, a := range []answer{
		n.do(t, "GET", "/api/routes", ""),
		n.do(t, "GET", "/api/routes/1", ""),
		n.do(t, "POST", "/api/routes", anyRoute),
		n.do(t, "PUT", "/api/routes/1", anyRoute),
		n.do(t, "PATCH", "/api/routes/1", anyRoute),
		n.do(t, "DELETE", "/api/routes/1", ""),
	} {
		a.want(503)
		if a.header.Get("Retry-After") == "" {
			t.Errorf("%s: no Retry-After", a.what)
		}
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	core, logs := observer.New(zapcore.ErrorLevel)
	n := newNode(t, func(c *api.Config) {
		c.Log = func() *zap.Logger { return zap.New(core) }
		c.Check = func(_ context.Context, row *store.Route) error {
			switch row.Name {
			case "fields":
				return store.FieldErrors{{Field: "plugins[0].handler", Message: "is unknown"}, {Field: "path", Message: "is ugly"}}
			case "unknown":
				return errors.New("password=secret")
			case "gone":
				return context.Canceled
			case "panic":
				panic("password=secret")
			}
			return nil
		}
	})
	n.create(t, "/a")
	for body, want := range map[string][]string{
		`{"name": "fields", "path": "/b", "target_url": "http://x"}`:                 {"body.path", "body.plugins[0].handler"},
		`{"name": "fields", "path": "b", "target_url": "http://x", "timeout": ""}`:   {"body.path", "body.plugins[0].handler", "body.timeout"},
		`{"name": "fields", "path": 5, "target_url": "http://x", "host": "a b"}`:     {"body.host", "body.path", "body.plugins[0].handler"},
		`{"name": "unknown", "path": "/b", "target_url": "http://x", "timeout": []}`: {"body.timeout"},
	} {
		for method, path := range map[string]string{"POST": "/api/routes", "PUT": "/api/routes/1", "PATCH": "/api/routes/1"} {
			if diff := cmp.Diff(want, n.do(t, method, path, body).want(422).locations()); diff != "" {
				t.Errorf("%s %s (-want +got):\n%s", method, body, diff)
			}
		}
	}
	if logs.Len() > 0 {
		t.Errorf("invalid routes are no errors of ours: %v", logs.All())
	}
	for i, name := range []string{"unknown", "panic"} {
		a := n.do(t, "POST", "/api/routes", `{"name": "`+name+`", "path": "/b", "target_url": "http://x"}`).want(500)
		if diff := cmp.Diff(object{"status": 500.0, "title": "Internal Server Error"}, a.object()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		if logs.Len() != i+1 {
			t.Errorf("%s: %d lines in the log", name, logs.Len())
		}
	}
	n.do(t, "POST", "/api/routes", `{"name": "gone", "path": "/b", "target_url": "http://x"}`).want(503)
	if n.count(t) != 1 {
		t.Error("a route that was refused is stored")
	}
}

// TestBrokenRows: what plain SQL has put there is shown with its error and can be
// repaired.
func TestBrokenRows(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "routes.db")
	plainSQL(t, file,
		`INSERT INTO routes (path, target_url) VALUES ('/good', 'http://x')`,
		`INSERT INTO routes (path, target_url) VALUES ('no-slash', 'http://x')`,
		`INSERT INTO routes (path, target_url, spec) VALUES ('/spec', 'http://x', '{"no_such": 1}')`)
	n := nodeOn(t, "sqlite://"+file)
	if got := n.do(t, "GET", "/api/status", "").object()["routes"]; cmp.Diff(object{"total": 3.0, "served": 1.0, "broken": 2.0}, got) != "" {
		t.Errorf("counts are %v", got)
	}
	if got := n.do(t, "GET", "/health", "").want(200).object()["status"]; got != "degraded" {
		t.Errorf("health is %v", got)
	}
	items := n.do(t, "GET", "/api/routes", "").want(200).object()["items"].([]any)
	for i, broken := range []bool{false, true, true} {
		one := n.do(t, "GET", pathOf(int64(i+1)), "").want(200).object()
		if diff := cmp.Diff(items[i], any(one)); diff != "" {
			t.Errorf("listed and alone differ:\n%s", diff)
		}
		if got, _ := one["error"].(string); (got != "") != broken {
			t.Errorf("the error of route %d is %q", i+1, got)
		}
	}
	n.do(t, "PATCH", "/api/routes/2", `{"timeout": 1}`).want(422)
	n.do(t, "PATCH", "/api/routes/2", `{"path": "/slash"}`).want(200)
	n.do(t, "PATCH", "/api/routes/3", `{"timeout": 1}`).want(409)
	n.do(t, "PUT", "/api/routes/3", `{"path": "/spec", "target_url": "http://x"}`).want(200)
	if got := n.do(t, "GET", "/health", "").want(200).object()["status"]; got != "ok" {
		t.Errorf("health is %v after all is repaired", got)
	}
}

func TestAuthor(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	h := api.New(api.Config{Gateway: n.Gateway})
	for i, c := range []struct {
		ctx    context.Context
		remote string
		want   store.Author
	}{
		{t.Context(), "192.0.2.7:1234", store.Author{Actor: api.DefaultActor, Source: "192.0.2.7"}},
		{t.Context(), "[2001:db8::1%eth0]:1234", store.Author{Actor: api.DefaultActor, Source: "2001:db8::1%eth0"}},
		{t.Context(), "@", store.Author{Actor: api.DefaultActor}},
		{api.WithAuthor(t.Context(), store.Author{Actor: "ann", Source: "token 5"}), "192.0.2.7:1234", store.Author{Actor: "ann", Source: "token 5"}},
	} {
		for _, step := range []struct{ method, path, body string }{
			{"POST", "/api/routes", anyRoute},
			{"PUT", pathOf(int64(i + 1)), `{"path": "/new", "target_url": "http://y"}`},
			{"PATCH", pathOf(int64(i + 1)), `{"timeout": 5}`},
			{"DELETE", pathOf(int64(i + 1)), ""},
		} {
			r := httptest.NewRequestWithContext(c.ctx, step.method, step.path, strings.NewReader(step.body))
			r.RemoteAddr = c.remote
			r.Header.Set("Content-Type", "application/json")
			rec := httptest.NewRecorder()
			h.ServeHTTP(rec, r)
			if rec.Code >= http.StatusBadRequest {
				t.Fatalf("%s %s: %d %s", step.method, step.path, rec.Code, rec.Body)
			}
			change := n.lastChange(t)
			if got := (store.Author{Actor: change.Actor, Source: change.Source}); got != c.want {
				t.Errorf("%s from %s: the author is %+v, want %+v", step.method, c.remote, got, c.want)
			}
		}
	}
}

func TestStatus(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.create(t, "/a")
	n.create(t, "/b", `"enabled": false`)
	n.Requests.Begin()
	n.Requests.End(http.StatusBadGateway)
	n.Requests.Begin()
	n.Requests.End(http.StatusServiceUnavailable)
	n.Requests.Shed()
	got := n.do(t, "GET", "/api/status", "").want(200).object()
	for name, want := range map[string]any{
		"version": "test", "status": "ok", "revision": 2.0,
		"routes":   object{"total": 2.0, "served": 1.0, "broken": 0.0},
		"requests": object{"total": 2.0, "in_flight": 0.0, "refused": 0.0, "failed": 2.0, "shed": 1.0},
	} {
		if diff := cmp.Diff(want, got[name]); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	health := n.do(t, "GET", "/health", "").want(200).object()
	if health["status"] != string(gateway.StatusOK) || health["revision"] != 2.0 {
		t.Errorf("health is %v", health)
	}
}
