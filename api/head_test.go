package api_test

import (
	"net/http/httptest"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/isekai-gateway/isekai/api"
	"github.com/isekai-gateway/isekai/requestlog"
	"github.com/isekai-gateway/isekai/store"
)

// TestHead: a HEAD is answered as GET is, without a body.
func TestHead(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.create(t, "/a")
	n.do(t, "POST", "/api/consumers", `{"name": "shop"}`).want(201)
	for _, path := range []string{
		"/health", "/health/live", "/health/ready", "/api/status", "/api/openapi.json", "/api/replicas", "/api/routes", "/api/routes/1",
		"/api/consumers", "/api/consumers/1", "/api/consumers/1/keys", "/api/tokens", "/api/upstreams", "/api/hosts", "/api/logs",
		"/api/logs/export", "/api/stats", "/api/ratelimits?key=k", "/api/revisions", "/api/revisions/1", "/api/config", "/api/config?format=yaml",
		"/api/routes/9", "/api/logs/export?status=9", "/api/logs/tail?status=9",
	} {
		get := n.do(t, "GET", path, "")
		head := n.do(t, "HEAD", path, "").want(get.status)
		for _, name := range []string{"Content-Type", "ETag"} {
			if diff := cmp.Diff(get.header.Get(name), head.header.Get(name)); diff != "" {
				t.Errorf("%s: %s (-GET +HEAD):\n%s", path, name, diff)
			}
		}
	}
}

// TestHeadOfTail: it ends, and leaves room for all who follow.
func TestHeadOfTail(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	if kind := n.do(t, "HEAD", "/api/logs/tail", "").want(200).header.Get("Content-Type"); kind != "text/event-stream" {
		t.Errorf("Content-Type %q", kind)
	}
	for i := range requestlog.MaxTails {
		tail, ok := n.RequestLog.Tail(nil)
		if !ok {
			t.Fatalf("there is room for %d only", i)
		}
		defer tail.Close()
	}
	n.do(t, "HEAD", "/api/logs/tail", "").want(503)
}

// TestHeadOfExport: it asks the store for no more than a GET does before its answer begins.
func TestHeadOfExport(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	rows := make([]*store.RequestLog, 5000)
	for i := range rows {
		rows[i] = &store.RequestLog{Method: "GET", Path: "/", Status: 200}
	}
	if err := n.Store().InsertLogs(t.Context(), store.LogBatch{Writer: uuid.NewString(), Number: 1, Rows: rows}); err != nil {
		t.Fatal(err)
	}
	before, rec := n.reads(), httptest.NewRecorder()
	// Not through a server, where the answer to a HEAD may come before its end.
	api.New(api.Config{Gateway: n.Gateway}).ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), "HEAD", "/api/logs/export", nil))
	if rec.Code != 200 || rec.Body.Len() > 0 {
		t.Errorf("%d, with a body of %d bytes", rec.Code, rec.Body.Len())
	}
	if reads := n.reads() - before; reads != 1 {
		t.Errorf("the store was asked %d times", reads)
	}
}

// reads returns how many calls have read some rows from the store.
func (n *node) reads() uint64 {
	for name, call := range n.StoreCalls.All() {
		if name == store.CallRead.String() {
			return call.Durations.Snapshot().Count
		}
	}
	return 0
}
