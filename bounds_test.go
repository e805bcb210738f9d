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
