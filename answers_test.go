package isekai_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"
)

// loggedStatuses returns the statuses of the request log, once there are so many.
func (s *server) loggedStatuses(n int) (statuses []string) {
	s.t.Helper()
	eventually(s.t, "the requests are logged", func() bool {
		statuses = s.sql("SELECT path || ' ' || status_code FROM request_logs ORDER BY path")
		return len(statuses) >= n
	})
	return statuses
}

// TestStatusesAreLoggedAsAnswered has answers that are made in unusual ways.
func TestStatusesAreLoggedAsAnswered(t *testing.T) {
	s, upstream := start(t, func(cfg map[string]any) { isekaiApp(cfg)["request_log"] = route{"flush_interval": "10ms"} }), echo(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			if _, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
				fmt.Fprint(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: foo\r\n\r\n")
			}
			conn.Close()
		}
	}()
	fromClient := "{http.request.header.X-Status}"
	s.create(route{"path": "/cors", "target_url": upstream.URL, "cors": route{"origins": []string{"https://a.example"}}})
	s.create(route{"path": "/error/{n}", "target_url": upstream.URL, "plugins": []any{route{"handler": "error", "status_code": fromClient}}})
	s.create(route{"path": "/static/{n}", "target_url": upstream.URL, "plugins": []any{route{"handler": "static_response", "status_code": fromClient}}})
	s.create(route{"path": "/terminal", "target_url": upstream.URL, "plugins": []any{route{"handler": "subroute", "routes": []any{route{"terminal": true}}}}})
	s.create(route{"path": "/upgrade", "target_url": "http://" + ln.Addr().String()})
	s.create(route{"path": "/method", "method": "*", "target_url": upstream.URL, "plugins": []any{route{"handler": "rewrite", "method": "{http.request.header.X-Method}"}}})
	s.create(route{"path": "/query", "target_url": upstream.URL, "plugins": []any{route{"handler": "rewrite", "uri": "{http.request.header.X-Uri}"}}})
	var want []string
	for _, tt := range []struct {
		method, path string
		header       []string
		status       int
	}{
		{"OPTIONS", "/cors", []string{"Origin", "https://a.example", "Access-Control-Request-Method", "GET"}, 204},
		{"GET", "/error/101", []string{"X-Status", "101"}, 500},
		{"GET", "/error/200", []string{"X-Status", "200"}, 500},
		{"GET", "/error/404", []string{"X-Status", "404"}, 404},
		{"GET", "/error/1000", []string{"X-Status", "1000"}, 500},
		{"GET", "/error/big", []string{"X-Status", "99999999999"}, 500},
		{"GET", "/error/negative", []string{"X-Status", "-5"}, 500},
		{"GET", "/static/299", []string{"X-Status", "299"}, 299},
		{"GET", "/static/1000", []string{"X-Status", "1000"}, 500},
		{"GET", "/terminal", nil, 200},
		{"GET", "/upgrade", []string{"Connection", "Upgrade", "Upgrade", "websocket", "Sec-Websocket-Key", "dGhlIHNhbXBsZSBub25jZQ==", "Sec-Websocket-Version", "13"}, 502},
		{"GET", "/method", []string{"X-Method", "TRACE"}, 405},
		{"GET", "/query", []string{"X-Uri", "/x?b c"}, 400},
	} {
		if res := s.do(tt.method, s.site+tt.path, "", tt.header...); res.StatusCode != tt.status {
			t.Errorf("%s: %d %s, want %d", tt.path, res.StatusCode, res.body, tt.status)
		}
		want = append(want, fmt.Sprintf("%s %d", tt.path, tt.status))
	}
	slices.Sort(want)
	got := s.loggedStatuses(len(want))
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("logged\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestStreamThatBeginsAfterTheDrainTime has its route deleted long before it begins.
func TestStreamThatBeginsAfterTheDrainTime(t *testing.T) {
	s := start(t, func(cfg map[string]any) { isekaiApp(cfg)["drain_timeout"] = "50ms" })
	arrived, begin := make(chan struct{}), make(chan struct{})
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/stream" {
			close(arrived)
			<-begin
		}
		w.Header().Set("Content-Type", "text/event-stream")
		for r.Context().Err() == nil {
			_, _ = io.WriteString(w, "data: x\n\n")
			_ = http.NewResponseController(w).Flush()
			select {
			case <-r.Context().Done():
			case <-time.After(10 * time.Millisecond):
			}
		}
	}))
	defer upstream.Close()
	id := s.create(route{"path": "/*", "target_url": upstream.URL, "timeout": 10})
	ended := make(chan error, 1)
	go func() {
		res, err := s.client.Get(s.site + "/stream")
		if err == nil {
			_, err = io.Copy(io.Discard, res.Body)
			_ = res.Body.Close()
		}
		ended <- err
	}()
	<-arrived
	// Another stream tells when the drain time has passed.
	res, err := s.client.Get(s.site + "/other")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res := s.write("DELETE", fmt.Sprintf("/api/routes/%d", id), nil); res.StatusCode != http.StatusNoContent {
		t.Fatalf("%d %s", res.StatusCode, res.body)
	}
	_, _ = io.Copy(io.Discard, res.Body)
	close(begin)
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		t.Error("the stream goes on")
	}
}

// TestHeldAnswerLeavesNothing has a plugin hold back more than there is room for.
func TestHeldAnswerLeavesNothing(t *testing.T) {
	s := start(t, nil)
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, name := range []string{"Etag", "Set-Cookie", "Content-Range", "Last-Modified", "X-Secret"} {
			w.Header().Set(name, "upstream")
		}
		_, _ = w.Write(make([]byte, 5<<20))
	}))
	defer upstream.Close()
	set := route{"handler": "headers", "response": route{"set": route{"X-A": []string{"b"}}}}
	s.create(route{"path": "/*", "target_url": upstream.URL, "plugins": []any{
		route{"handler": "intercept", "handle_response": []any{route{"routes": []any{route{"handle": []any{set}}}}}},
	}})
	res := s.get("/x")
	if res.StatusCode != http.StatusBadGateway {
		t.Errorf("status %d", res.StatusCode)
	}
	for name, values := range res.Header {
		if slices.Contains(values, "upstream") {
			t.Errorf("%s is still there", name)
		}
	}
	if res.Header.Get("X-Request-Id") == "" {
		t.Error("the answer has no request id")
	}
}

// TestMetricsOfBadTexts has a row that Prometheus has no text for.
func TestMetricsOfBadTexts(t *testing.T) {
	s, upstream := start(t, nil), echo(t)
	s.create(route{"path": "/a", "target_url": upstream.URL})
	s.get("/a")
	s.sql("UPDATE routes SET name = CAST(x'ff41' AS TEXT) RETURNING id")
	eventually(t, "the name is a label", func() bool {
		res := s.do("GET", s.admin+"/metrics", "")
		if res.StatusCode != http.StatusOK {
			t.Fatalf("%d %.200s", res.StatusCode, res.body)
		}
		return strings.Contains(res.body, "name=\"\uFFFDA\"")
	})
}
