package e2e_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

// withBody sends a body: with its length or, if chunked is true, without.
func withBody(body string, chunked bool) func(*http.Request) {
	return func(r *http.Request) {
		r.Body = io.NopCloser(strings.NewReader(body))
		r.ContentLength = int64(len(body))
		if chunked {
			r.ContentLength = -1
		}
	}
}

// echoBody has the backend answer with the request's body.
func echoBody(b *backend) {
	b.answer(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		_, _ = w.Write(body)
	})
}

// TestRetries goes through who is tried again, and with what.
func TestRetries(t *testing.T) {
	t.Parallel()
	short, long := strings.Repeat("short ", 100), strings.Repeat("0123456789abcdef", 8<<10)
	three := 3
	tests := []struct {
		name    string
		fail    func(*backend)
		retries *int
		retry   map[string]any
		method  string
		body    string
		chunked bool
		again   bool // whether the second target answers
	}{
		{name: "a GET of one that refuses", fail: (*backend).stop, method: "GET", again: true},
		{name: "a POST of one that refuses", fail: (*backend).stop, method: "POST", body: short, again: true},
		{name: "a long POST of one that refuses", fail: (*backend).stop, method: "POST", body: long, again: true},
		{name: "a chunked POST of one that refuses", fail: (*backend).stop, method: "POST", body: short, chunked: true, again: true},
		{name: "nothing without retries", fail: (*backend).stop, retries: new(int), method: "GET"},
		{name: "nothing without retries, after an abort", fail: (*backend).abort, retries: new(int), method: "GET"},

		{name: "a GET of one that aborts", fail: (*backend).abort, method: "GET", again: true},
		{name: "a PUT of one that aborts", fail: (*backend).abort, method: "PUT", body: short, again: true},
		{name: "a chunked PUT of one that aborts", fail: (*backend).abort, method: "PUT", body: short, chunked: true, again: true},
		{name: "a long PUT of one that aborts", fail: (*backend).abort, method: "PUT", body: long},
		{name: "a long chunked PUT of one that aborts", fail: (*backend).abort, method: "PUT", body: long, chunked: true},
		{name: "a long PUT that may be kept", fail: (*backend).abort, retry: map[string]any{"body_max": 1 << 20}, method: "PUT", body: long, again: true},
		{name: "a POST of one that aborts", fail: (*backend).abort, method: "POST", body: short},
		{name: "a POST that may be repeated", fail: (*backend).abort, retry: map[string]any{"methods": []string{"POST"}}, method: "POST", body: short, again: true},
		{name: "a GET that may not", fail: (*backend).abort, retry: map[string]any{"methods": []string{"POST"}}, method: "GET"},
		{name: "no budget", fail: (*backend).abort, retries: &three, retry: map[string]any{"budget_percent": 0, "budget_min": 0}, method: "GET"},
		{name: "no budget needed to connect", fail: (*backend).stop, retry: map[string]any{"budget_percent": 0, "budget_min": 0}, method: "GET", again: true},

		{name: "a status", fail: func(b *backend) { b.status(503) }, retry: map[string]any{"statuses": []int{502, 503}}, method: "GET", again: true},
		{name: "a status of a PUT", fail: func(b *backend) { b.status(502) }, retry: map[string]any{"statuses": []int{502, 503}}, method: "PUT", body: short, again: true},
	}
	g := startGateway(t, settings{})
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			a, b := newBackend(t, "a"), newBackend(t, "b")
			tt.fail(a)
			echoBody(b)
			u := poolOf(a, b)
			u.Policy, u.Retries, u.Retry = "first", tt.retries, tt.retry
			path := fmt.Sprint("/", i)
			r := g.create(route{Path: path, Method: "*", TargetURL: a.url(), Upstream: u})
			got := g.send(tt.method, path, withBody(tt.body, tt.chunked))
			if !tt.again {
				if got.status != http.StatusBadGateway || b.hits.Load() != 0 {
					t.Errorf("the answer is %.100s, the other target was asked %d times", got, b.hits.Load())
				}
				return
			}
			if got.status != http.StatusOK || string(got.body) != tt.body {
				t.Errorf("the answer is %.100s, of %d bytes", got, len(got.body))
			}
			if pool := g.pool(r.ID); pool.Requests != 1 || pool.Retries != 1 {
				t.Errorf("the pool counts %+v", pool)
			}
		})
	}
}

// TestRetriedStatusComesThrough gives the client an upstream's own answer when
// there is none better.
func TestRetriedStatusComesThrough(t *testing.T) {
	t.Parallel()
	g := startGateway(t, settings{})
	a, b := newBackend(t, "a"), newBackend(t, "b")
	a.status(503)
	b.status(503)
	u := poolOf(a, b)
	u.Retry = map[string]any{"statuses": []int{503}}
	g.create(route{Path: "/x", TargetURL: a.url(), Upstream: u})
	got := g.send(http.MethodGet, "/x")
	if got.status != 503 || len(got.body) != 1 || a.hits.Load() != 1 || b.hits.Load() != 1 {
		t.Errorf("the answer is %s after %d and %d requests", got, a.hits.Load(), b.hits.Load())
	}
}

// TestRetryBudget sends requests to a target that fails all of them: it must not
// get many more than there are.
func TestRetryBudget(t *testing.T) {
	t.Parallel()
	g := startGateway(t, settings{})
	a := newBackend(t, "a")
	a.abort()
	two := 2
	r := g.create(route{Path: "/x", TargetURL: a.url(), Upstream: &upstreamSettings{
		Retries: &two, Retry: map[string]any{"budget_percent": 10, "budget_min": 1, "backoff": 0.001},
	}})
	const sent = 400
	for range sent {
		wantProblem(t, g.send(http.MethodGet, "/x"), http.StatusBadGateway)
	}
	pool, hits := g.pool(r.ID), int(a.hits.Load())
	// The window may have been left once or twice on a slow machine; what counts is
	// that most were not repeated.
	if hits <= sent || hits > sent+sent/4 || pool.Retries != hits-sent || pool.RetriesDenied < sent/2 {
		t.Errorf("%d requests became %d; the pool counts %d retries, %d denied", sent, hits, pool.Retries, pool.RetriesDenied)
	}
}

// TestRetrySameTarget tries the only target again.
func TestRetrySameTarget(t *testing.T) {
	t.Parallel()
	g := startGateway(t, settings{})
	a := newBackend(t, "a")
	a.answer(func(w http.ResponseWriter, r *http.Request) {
		if a.hits.Load() < 3 {
			panic(http.ErrAbortHandler)
		}
		_, _ = io.Copy(w, r.Body)
	})
	two := 2
	g.create(route{Path: "/x", Method: "PUT", TargetURL: a.url(), Upstream: &upstreamSettings{Retries: &two, Retry: map[string]any{"backoff": 0.01}}})
	if got := g.send(http.MethodPut, "/x", payload("again and again")); got.status != http.StatusOK || string(got.body) != "again and again" {
		t.Errorf("the third attempt is answered %s", got)
	}
}

// TestRetryOfSilence goes on from a target that takes the request and says nothing.
func TestRetryOfSilence(t *testing.T) {
	t.Parallel()
	g := startGateway(t, settings{})
	a, b := newBackend(t, "a"), newBackend(t, "b")
	cancelled := make(chan struct{}, 1)
	a.answer(func(_ http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
		cancelled <- struct{}{}
	})
	u := poolOf(a, b)
	u.Policy, u.Timeouts = "first", map[string]any{"response_header": 0.1}
	g.create(route{Path: "/x", Method: "*", TargetURL: a.url(), Upstream: u})
	g.wantBody("/x", "b")
	<-cancelled
	wantProblem(t, g.send(http.MethodPost, "/x"), http.StatusGatewayTimeout)
}

// TestIdleTimeout breaks off an answer whose body falls silent, and no other.
func TestIdleTimeout(t *testing.T) {
	t.Parallel()
	g := startGateway(t, settings{})
	a := newBackend(t, "a")
	never := 0
	half := bytes.Repeat([]byte("x"), 1000)
	cancelled := make(chan struct{}, 1)
	a.answer(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "2000")
		_, _ = w.Write(half)
		_ = http.NewResponseController(w).Flush()
		if r.URL.Path == "/silent" {
			<-r.Context().Done()
			cancelled <- struct{}{}
			return
		}
		_, _ = w.Write(half)
	})
	u := &upstreamSettings{Timeouts: map[string]any{"idle": 0.2}}
	g.create(route{Path: "/{any}", TargetURL: a.url(), Timeout: &never, Upstream: u})
	if got, err := g.trySend(http.MethodGet, "/silent"); err == nil {
		t.Errorf("a body that falls silent ends as %d bytes", len(got.body))
	}
	<-cancelled
	if got := g.send(http.MethodGet, "/fluent"); len(got.body) != 2000 {
		t.Errorf("a fluent body has %d bytes", len(got.body))
	}
}
