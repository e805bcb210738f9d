package api_test

import (
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/isekai-gateway/isekai/api"
	"github.com/isekai-gateway/isekai/gateway"
	"github.com/isekai-gateway/isekai/ratelimit"
	"github.com/isekai-gateway/isekai/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// object is a JSON object.
type object = map[string]any

// node is an API over a real gateway.
type node struct {
	*gateway.Gateway
	url string
}

// newNode starts a gateway with a store of its own and its API; change may adapt
// the configuration.
func newNode(t *testing.T, change ...func(*api.Config)) *node {
	t.Helper()
	return nodeOn(t, newDSN(t), change...)
}

func newDSN(t *testing.T) string {
	t.Helper()
	return "sqlite://" + filepath.Join(t.TempDir(), "routes.db")
}

func nodeOn(t *testing.T, dsn string, change ...func(*api.Config)) *node {
	t.Helper()
	g := openGateway(t, dsn)
	g.Start(t.Context())
	if g.Table() == nil {
		t.Fatal("the routes were not loaded")
	}
	return serve(t, g, change...)
}

// openGateway opens a gateway, which may not be loaded when it returns.
func openGateway(t *testing.T, dsn string) *gateway.Gateway {
	t.Helper()
	g, err := gateway.Open(gateway.Config{
		DSN: dsn, Log: zap.NewNop,
		Store:        store.Options{QueryTimeout: time.Minute}, // a busy machine is no broken store
		PollInterval: time.Hour,                                // what a test writes past the gateway stays unseen
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	})
	return g
}

func serve(t *testing.T, g *gateway.Gateway, change ...func(*api.Config)) *node {
	t.Helper()
	cfg := api.Config{Gateway: g, Limits: ratelimit.New(ratelimit.Config{}), Version: "test"}
	for _, c := range change {
		c(&cfg)
	}
	server := httptest.NewServer(api.New(cfg))
	t.Cleanup(server.Close)
	return &node{Gateway: g, url: server.URL}
}

// answer is what came back.
type answer struct {
	t      *testing.T
	what   string
	method string
	path   string
	status int
	header http.Header
	text   []byte
}

// do sends a request with a JSON body, if there is one; fields are header fields as
// "Name: value", which may replace the Content-Type.
func (n *node) do(t *testing.T, method, path, body string, fields ...string) answer {
	t.Helper()
	var reader io.Reader
	if body != "" {
		reader = strings.NewReader(body)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, n.url+path, reader)
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for _, f := range fields {
		name, value, _ := strings.Cut(f, ": ")
		if value == "" {
			req.Header.Del(name)
		} else {
			req.Header.Set(name, value)
		}
	}
	return n.send(t, req)
}

func (n *node) send(t *testing.T, req *http.Request) answer {
	t.Helper()
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	a := answer{t: t, what: req.Method + " " + req.URL.RequestURI(), method: req.Method, path: req.URL.EscapedPath(), status: resp.StatusCode, header: resp.Header, text: text}
	a.checkAlways()
	return a
}

// checkAlways checks what is true of every answer.
func (a answer) checkAlways() {
	a.t.Helper()
	for name, want := range map[string]string{"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"} {
		if got := a.header.Get(name); got != want {
			a.t.Errorf("%s: %s is %q, want %q", a.what, name, got, want)
		}
	}
	if a.header.Get("Content-Type") == "application/problem+json" && len(a.text) > 0 {
		if got := a.object()["status"]; got != float64(a.status) {
			a.t.Errorf("%s: the problem says status %v, the answer %d", a.what, got, a.status)
		}
	}
	checkDocumented(a)
}

// want ends the test unless the answer has this status.
func (a answer) want(status int) answer {
	a.t.Helper()
	if a.status != status {
		a.t.Fatalf("%s: status %d, want %d: %s", a.what, a.status, status, a.text)
	}
	return a
}

func (a answer) object() object {
	a.t.Helper()
	var v object
	if err := json.Unmarshal(a.text, &v); err != nil {
		a.t.Fatalf("%s: %v in %q", a.what, err, a.text)
	}
	return v
}

func (a answer) id() int64 {
	a.t.Helper()
	id, ok := a.object()["id"].(float64)
	if !ok {
		a.t.Fatalf("%s: no id in %s", a.what, a.text)
	}
	return int64(id)
}

// locations returns where the problem says that something is wrong, sorted.
func (a answer) locations() []string {
	a.t.Helper()
	var all []string
	errs, _ := a.object()["errors"].([]any)
	for _, e := range errs {
		all = append(all, e.(object)["location"].(string))
	}
	slices.Sort(all)
	return all
}

// create makes a route of path with more members, e.g. `"method": "POST"`.
func (n *node) create(t *testing.T, path string, members ...string) answer {
	t.Helper()
	members = append(members, fmt.Sprintf(`"path": %q, "target_url": "http://127.0.0.1:9000"`, path))
	return n.do(t, "POST", "/api/routes", "{"+strings.Join(members, ", ")+"}").want(201)
}

// count returns the number of routes in the store.
func (n *node) count(t *testing.T) int {
	t.Helper()
	rows, _, err := n.Store().Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return len(rows)
}

// plainSQL makes a store in a file and runs statements past it.
func plainSQL(t *testing.T, file string, statements ...string) {
	t.Helper()
	st, err := store.Open(t.Context(), "sqlite://"+file, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(st.Migrate(t.Context()), st.Close()); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", file) // the driver is registered by the store
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range statements {
		if _, err := db.ExecContext(t.Context(), s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

// lastChange returns the last change.
func (n *node) lastChange(t *testing.T) store.Change {
	t.Helper()
	changes, err := n.Store().History(t.Context(), 0, 1)
	if err != nil || len(changes) == 0 {
		t.Fatalf("reading history: %v, %d changes", err, len(changes))
	}
	return changes[0]
}

func pathOf(id int64) string { return fmt.Sprintf("/api/routes/%d", id) }
