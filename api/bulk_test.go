package api_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/isekai-gateway/isekai/api"
)

// bulkRequests are the changes of many routes that have a body.
var bulkRequests = []struct{ method, path, body string }{
	{"POST", "/api/routes/batch", `{"operations": [{"op": "create", "route": {"path": "/a", "target_url": "http://a"}}]}`},
	{"PUT", "/api/config?prune=false", `{"routes": [{"path": "/b", "target_url": "http://b"}]}`},
}

// TestStalledBody: while the body of a change of many routes does not arrive, others make
// theirs.
func TestStalledBody(t *testing.T) {
	t.Parallel()
	for _, stalled := range bulkRequests {
		t.Run(stalled.path, func(t *testing.T) {
			t.Parallel()
			n := newNode(t)
			body, rest := io.Pipe()
			awaited := make(chan struct{})
			ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got100Continue: func() { close(awaited) }})
			req, err := http.NewRequestWithContext(ctx, stalled.method, n.url+stalled.path, body)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Content-Type", "application/json")
			req.Header.Set("Expect", "100-continue")
			done := make(chan answer)
			go func() {
				defer close(done)
				done <- n.send(t, req)
			}()
			<-awaited
			n.create(t, "/c")
			for _, other := range bulkRequests {
				n.do(t, other.method, strings.Replace(other.path, "?", "?dry_run=true&", 1), other.body).want(200)
			}
			n.do(t, "POST", "/api/revisions/1/rollback", "").want(200)
			if _, err := io.WriteString(rest, stalled.body); err != nil {
				t.Error(err)
			}
			_ = rest.Close()
			a := <-done
			a.want(200)
			if got := n.count(t); got != 2 {
				t.Errorf("%d routes", got)
			}
		})
	}
}

// TestManyStalledBodies: how many bodies of changes of many routes are read at a time is
// bounded, since each may take a good part of the memory.
func TestManyStalledBodies(t *testing.T) {
	t.Parallel()
	for _, stalled := range bulkRequests {
		t.Run(stalled.path, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				h := api.New(api.Config{})
				body, rest := io.Pipe()
				const clients = 20
				answers := make(chan *httptest.ResponseRecorder, clients)
				for range clients {
					go func() {
						r := httptest.NewRequestWithContext(t.Context(), stalled.method, stalled.path, body)
						r.Header.Set("Content-Type", "application/json")
						rec := httptest.NewRecorder()
						h.ServeHTTP(rec, r)
						answers <- rec
					}()
				}
				time.Sleep(2 * time.Minute)
				refused := len(answers)
				if refused != clients-4 {
					t.Errorf("%d of %d clients are refused", refused, clients)
				}
				for range refused {
					if rec := <-answers; rec.Code != http.StatusServiceUnavailable || rec.Header().Get("Retry-After") == "" {
						t.Errorf("refused with %d, Retry-After %q", rec.Code, rec.Header().Get("Retry-After"))
					}
				}
				_ = rest.CloseWithError(io.ErrUnexpectedEOF)
				for range clients - refused {
					if rec := <-answers; rec.Code != http.StatusBadRequest {
						t.Errorf("%d: %s", rec.Code, rec.Body)
					}
				}
			})
		})
	}
}
