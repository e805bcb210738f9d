package e2e_test

import (
	"context"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// send sends a request through the plain site and returns the whole answer.
func (g *gateway) send(method, target string, change ...func(*http.Request)) answer {
	g.t.Helper()
	a, err := g.trySend(method, target, change...)
	if err != nil {
		g.t.Fatalf("%s %s: %v", method, target, err)
	}
	return a
}

// trySend is send for when the answer may fail. Safe for any goroutine.
func (g *gateway) trySend(method, target string, change ...func(*http.Request)) (answer, error) {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "http://"+g.http+target, nil)
	if err != nil {
		return answer{}, err
	}
	for _, fn := range change {
		fn(req)
	}
	resp, err := g.client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, body}, err
}

// wantBody fails the test unless a GET answers 200 with the body.
func (g *gateway) wantBody(target, body string, change ...func(*http.Request)) {
	g.t.Helper()
	if err := g.checkBody(target, body, change...); err != nil {
		g.t.Error(err)
	}
}

func (g *gateway) checkBody(target, body string, change ...func(*http.Request)) error {
	a, err := g.trySend(http.MethodGet, target, change...)
	if err != nil {
		return err
	}
	if a.status != http.StatusOK || string(a.body) != body {
		return fmt.Errorf("GET %s answered %s, want 200 %s", target, a, body)
	}
	return nil
}

// wantProblem fails the test unless the answer is a problem with this status,
// which names the request and nothing of the inside.
func wantProblem(t testing.TB, a answer, status int, secrets ...string) problem {
	t.Helper()
	if a.status != status {
		t.Errorf("answer is %s, want %d", a, status)
		return problem{}
	}
	p := a.problem(t)
	if id := a.header.Get("X-Request-Id"); id == "" || p.RequestID != id {
		t.Errorf("the problem's request_id is %q, the field X-Request-Id %q", p.RequestID, id)
	}
	for _, secret := range append(secrets, "127.0.0.1", "goroutine", "dial tcp", "SELECT") {
		if strings.Contains(string(a.body), secret) {
			t.Errorf("the problem shows %q: %s", secret, a.body)
		}
	}
	return p
}

// host sets a request's Host.
func host(name string) func(*http.Request) {
	return func(r *http.Request) { r.Host = name }
}

// header sets a header field of a request.
func header(name, value string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set(name, value) }
}

// payload sets a request's body.
func payload(text string) func(*http.Request) {
	return func(r *http.Request) {
		r.Body = io.NopCloser(strings.NewReader(text))
		r.ContentLength = int64(len(text))
	}
}

// discardLog is for servers whose clients are expected to fail.
var discardLog = log.New(io.Discard, "", 0)

// newUpstream serves the handler on the loopback interface until the test ends.
func newUpstream(t testing.TB, handler http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(handler)
	t.Cleanup(s.Close)
	return s
}

// textUpstream answers every request with the text.
func textUpstream(t testing.TB, text string) string {
	t.Helper()
	return newUpstream(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, text)
	}).URL
}

// certificateOf returns a TLS server's own certificate, in PEM.
func certificateOf(t testing.TB, s *httptest.Server) string {
	t.Helper()
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
}
