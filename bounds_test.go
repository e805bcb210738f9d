package isekai_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestCutBodiesOfManyClients cuts bodies while upstreams read them, and while
// upstreams answer; the race detector sees who touches what.
func TestCutBodiesOfManyClients(t *testing.T) {
	s := start(t, func(cfg map[string]any) { isekaiApp(cfg)["body_max"] = 100_000 })
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/reads" {
			_, _ = io.Copy(io.Discard, r.Body)
			return
		}
		_, _ = io.CopyN(io.Discard, r.Body, 90_000)
		w.WriteHeader(http.StatusAccepted)
	}))
	defer upstream.Close()
	s.create(route{"path": "/*", "target_url": upstream.URL, "method": "*"})
	body := strings.Repeat("x", 150_000)
	var wg sync.WaitGroup
	for _, path := range []string{"/reads", "/answers"} {
		for range 8 {
			wg.Go(func() {
				status, err := s.putChunked(path, body)
				// An upstream that answers early may be faster than the bound.
				if err != nil || status != http.StatusRequestEntityTooLarge && (path == "/reads" || status != http.StatusAccepted) {
					t.Errorf("%s: %d, %v", path, status, err)
				}
			})
		}
	}
	wg.Wait()
}

// putChunked sends a body in one chunk, by a connection of its own, and returns
// the answer's status.
func (s *server) putChunked(path, body string) (int, error) {
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.site, "http://"))
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	go func() {
		// The server may close before it has all of it.
		fmt.Fprintf(conn, "PUT %s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", path, len(body), body)
	}()
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	return res.StatusCode, nil
}

func TestPreflightsPassThru(t *testing.T) {
	s := start(t, func(cfg map[string]any) {
		siteOf(cfg)["routes"] = handle(route{"handler": "isekai", "pass_thru": true}, route{"handler": "static_response", "body": "next"})
	})
	s.create(route{"path": "/mine", "method": "PUT", "target_url": "http://127.0.0.1:1", "cors": route{}})
	s.create(route{"path": "/other", "method": "PUT", "target_url": "http://127.0.0.1:1"})
	for path, want := range map[string]int{"/mine": http.StatusNoContent, "/other": http.StatusOK, "/none": http.StatusOK} {
		res := s.do("OPTIONS", s.site+path, "", "Origin", "https://app.test", "Access-Control-Request-Method", "PUT")
		if res.StatusCode != want || want == http.StatusOK && res.body != "next" {
			t.Errorf("%s: %d %q", path, res.StatusCode, res.body)
		}
	}
}

// TestPreflightWithBody has a body that never comes: it must not keep the answer.
func TestPreflightWithBody(t *testing.T) {
	s := start(t, nil)
	s.create(route{"path": "/x", "method": "PUT", "target_url": "http://127.0.0.1:1", "cors": route{}})
	for _, expect := range []string{"", "Expect: 100-continue\r\n"} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(s.site, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "OPTIONS /x HTTP/1.1\r\nHost: x\r\nOrigin: https://app.test\r\nAccess-Control-Request-Method: PUT\r\nContent-Length: 1000\r\n%s\r\n", expect)
		// Much longer than it takes, and much shorter than for ever.
		_ = conn.SetReadDeadline(time.Now().Add(time.Minute))
		answer, err := io.ReadAll(conn)
		if err != nil {
			t.Fatalf("the connection is still open: %v", err)
		}
		if !strings.HasPrefix(string(answer), "HTTP/1.1 204 ") || strings.Count(string(answer), "HTTP/1.1") != 1 {
			t.Errorf("got %q", answer)
		}
	}
}
