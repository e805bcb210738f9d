package isekai_test

import (
	"bufio"
	"net/http"
	"strings"
	"testing"
)

// follow opens a tail and returns its lines, without empty ones.
func (s *server) follow(query string) <-chan string {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), "GET", s.admin+"/api/logs/tail"+query, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	res, err := s.client.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = res.Body.Close() })
	if res.StatusCode != http.StatusOK || res.Header.Get("Content-Type") != "text/event-stream" {
		s.t.Fatalf("tail: %d %s", res.StatusCode, res.Header.Get("Content-Type"))
	}
	lines := make(chan string, 100)
	go func() {
		defer close(lines)
		for scanner := bufio.NewScanner(res.Body); scanner.Scan(); {
			if scanner.Text() != "" {
				lines <- scanner.Text()
			}
		}
	}()
	if first := <-lines; first != ": following" {
		s.t.Fatalf("the tail begins with %q", first)
	}
	return lines
}

func TestTail(t *testing.T) {
	s := start(t, nil)
	all, some := s.follow(""), s.follow("?path=/b&status=4xx")
	s.get("/a")
	s.get("/b")
	for _, tt := range []struct {
		lines <-chan string
		path  string
	}{{all, "/a"}, {all, "/b"}, {some, "/b"}} {
		if event := <-tt.lines; event != "event: request" {
			t.Fatalf("event %q", event)
		}
		if data := <-tt.lines; !strings.Contains(data, `"path":"`+tt.path+`","status":404`) {
			t.Errorf("data %q, want %s", data, tt.path)
		}
	}
	for query, want := range map[string]int{"?status=x": 422, "?limit=5": 422} {
		if res := s.do("GET", s.admin+"/api/logs/tail"+query, ""); res.StatusCode != want {
			t.Errorf("%s: %d, want %d", query, res.StatusCode, want)
		}
	}
	// At the end of the test Caddy stops, though two follow.
}
