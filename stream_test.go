package isekai_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestTimeout(t *testing.T) {
	s, upstream := start(t, nil), newHolding(t)
	s.create(route{"path": "/slow/*", "target_url": upstream.URL, "timeout": 1})
	res := s.get("/slow/hold")
	if res.StatusCode != http.StatusGatewayTimeout || !strings.Contains(res.body, "request_id") {
		t.Errorf("got %d %s", res.StatusCode, res.body)
	}
	<-upstream.arrived
}

func TestTimeoutInTheMiddleOfAnAnswer(t *testing.T) {
	s := start(t, nil)
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "100")
		_, _ = w.Write([]byte("part"))
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}))
	defer upstream.Close()
	s.create(route{"path": "/*", "target_url": upstream.URL, "timeout": 1})
	res, err := s.client.Get(s.site + "/x")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if body, err := io.ReadAll(res.Body); err == nil {
		t.Errorf("an answer that was cut off looks whole: %q", body)
	}
}

// events is an upstream that sends an event whenever it is told to, and then
// falls silent.
func events(t *testing.T, send <-chan struct{}) *httptest.Server {
	t.Helper()
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
		_ = http.NewResponseController(w).Flush()
		for {
			select {
			case <-send:
				fmt.Fprint(w, "data: x\n\n")
				_ = http.NewResponseController(w).Flush()
			case <-r.Context().Done():
				return
			}
		}
	}))
	t.Cleanup(upstream.Close)
	return upstream
}

func TestOnlyIdleTimeCountsOfStreams(t *testing.T) {
	s := start(t, nil)
	send := make(chan struct{})
	s.create(route{"path": "/*", "target_url": events(t, send).URL, "timeout": 1})
	res, err := s.client.Get(s.site + "/events")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	lines := bufio.NewReader(res.Body)
	// Together they take longer than the timeout, each of them less.
	for i := range 4 {
		time.Sleep(400 * time.Millisecond)
		send <- struct{}{}
		for range 2 {
			if _, err := lines.ReadString('\n'); err != nil {
				t.Fatalf("event %d: %v", i, err)
			}
		}
	}
	// And silence ends it.
	if line, err := lines.ReadString('\n'); err == nil {
		t.Errorf("got %q from a silent stream", line)
	}
}

func TestSilentWebSocketIsClosed(t *testing.T) {
	s, upstream := start(t, nil), newHolding(t)
	s.create(route{"path": "/ws", "target_url": upstream.URL, "timeout": 1})
	conn := s.dial("/ws")
	for range 3 {
		time.Sleep(500 * time.Millisecond)
		if err := echoes(t, conn); err != nil {
			t.Fatalf("a WebSocket in use: %v", err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, _, err := conn.Read(ctx); err == nil || ctx.Err() != nil {
		t.Errorf("the silent WebSocket was not closed: %v", err)
	}
}

func TestClientThatLeavesCancelsTheUpstream(t *testing.T) {
	s := start(t, nil)
	arrived, canceled := make(chan struct{}), make(chan struct{})
	upstream := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(arrived)
		<-r.Context().Done()
		close(canceled)
	}))
	defer upstream.Close()
	s.create(route{"path": "/*", "target_url": upstream.URL})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-arrived
		cancel()
	}()
	req, err := http.NewRequestWithContext(ctx, "GET", s.site+"/x", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := s.client.Do(req)
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v, %v", res, err)
	}
	select {
	case <-canceled:
	case <-time.After(10 * time.Second):
		t.Error("the upstream's request goes on")
	}
}

func TestPanickingUpstreamCutsTheAnswerNotTheServer(t *testing.T) {
	s := start(t, nil)
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/late" {
			_, _ = w.Write(bytes.Repeat([]byte("x"), 10_000))
			_ = http.NewResponseController(w).Flush()
		}
		panic(http.ErrAbortHandler)
	}))
	defer upstream.Close()
	s.create(route{"path": "/*", "target_url": upstream.URL})
	if res := s.get("/early"); res.StatusCode != http.StatusBadGateway {
		t.Errorf("got %d", res.StatusCode)
	}
	res, err := s.client.Get(s.site + "/late")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if _, err := io.ReadAll(res.Body); err == nil {
		t.Error("an answer that was cut off looks whole")
	}
}

// earlyAnswer is a raw upstream that answers as soon as it has the header, and
// reads no body. It counts the requests whose path is /hidden.
func earlyAnswer(t *testing.T) (addr string, hidden *atomic.Int64) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	hidden = new(atomic.Int64)
	var conns sync.WaitGroup
	t.Cleanup(func() { _ = ln.Close(); conns.Wait() })
	conns.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			conns.Go(func() {
				defer conn.Close()
				_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
				r, err := http.ReadRequest(bufio.NewReader(conn))
				if err != nil {
					return
				}
				if r.URL.Path == "/hidden" {
					hidden.Add(1)
				}
				fmt.Fprint(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
			})
		}
	})
	return ln.Addr().String(), hidden
}

func TestUnreadBodyIsNeverParsedAsRequests(t *testing.T) {
	for name, idle := range map[string]string{"Caddy's default": "1m", "without idle timeout": "-1s"} {
		t.Run(name, func(t *testing.T) {
			s := start(t, func(cfg map[string]any) { siteOf(cfg)["read_idle_timeout"] = idle })
			addr, hidden := earlyAnswer(t)
			s.create(route{"path": "/*", "target_url": "http://" + addr, "method": "*"})

			smuggled := "GET /hidden HTTP/1.1\r\nHost: x\r\n\r\n"
			for shift := range len(smuggled) {
				for _, chunked := range []bool{false, true} {
					smuggle(t, s, smuggled, shift, chunked)
				}
			}
			if n := hidden.Load(); n > 0 {
				t.Errorf("%d requests hidden in bodies were executed", n)
			}
		})
	}
}

// smuggle sends a body made of hidden requests, as far as the server takes it,
// and reads what it answers until it closes the connection.
func smuggle(t *testing.T, s *server, hidden string, shift int, chunked bool) {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.site, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	body := strings.Repeat("x", shift) + strings.Repeat(hidden, 1<<20/len(hidden))
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		// The server may close before it has all of it.
		if chunked {
			fmt.Fprintf(conn, "PUT /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(body), body)
		} else {
			fmt.Fprintf(conn, "PUT /x HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		}
	}()
	answers := bufio.NewReader(conn)
	first, err := http.ReadResponse(answers, nil)
	if err != nil {
		// A reset can overtake the answer; nothing was executed by it.
		return
	}
	_, _ = io.Copy(io.Discard, first.Body)
	<-sent
	// If the upstream's socket took the whole body, the connection is kept, and
	// rightly so. This ends it.
	_ = conn.(*net.TCPConn).CloseWrite()
	if second, err := http.ReadResponse(answers, nil); err == nil {
		t.Errorf("shift %d, chunked %v: a second answer, %d", shift, chunked, second.StatusCode)
	}
}

func TestRefusedBodyCanNotHoldItsConnection(t *testing.T) {
	s := start(t, nil)
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.site, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "POST /no-route HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nonly this")
	// Much longer than it takes, and much shorter than for ever.
	_ = conn.SetReadDeadline(time.Now().Add(time.Minute))
	answer, err := io.ReadAll(conn)
	if err != nil {
		t.Fatalf("the connection is still open: %v", err)
	}
	if !strings.HasPrefix(string(answer), "HTTP/1.1 404 ") {
		t.Errorf("got %q", answer)
	}
}
