package load

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestReadRequest(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, text string
		want       string
		fails      bool
	}{
		{name: "get", text: "GET /r/17/10k HTTP/1.1\r\nHost: a\r\n\r\n", want: "10k"},
		{name: "post", text: "POST /r/0/128 HTTP/1.1\r\ncontent-length: 5\r\n\r\nhello", want: "128"},
		{name: "chunked", text: "POST /128 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", want: "128"},
		{name: "no request line", text: "GET\r\n\r\n", fails: true},
		{name: "a length that is none", text: "POST /128 HTTP/1.1\r\nContent-Length: -5\r\n\r\n", fails: true},
		{name: "a body that ends early", text: "POST /128 HTTP/1.1\r\nContent-Length: 5\r\n\r\nhel", fails: true},
		{name: "a chunk without its end", text: "POST /128 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello0\r\n\r\n", fails: true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := bufio.NewReader(strings.NewReader(test.text + "GET /next HTTP/1.1\r\n\r\n"))
			if strings.HasSuffix(test.name, "early") {
				r = bufio.NewReader(strings.NewReader(test.text))
			}
			got, err := readRequest(r)
			if (err != nil) != test.fails || got != test.want {
				t.Fatalf("got %q, %v", got, err)
			}
			if test.fails {
				return
			}
			if next, err := readRequest(r); err != nil || next != "next" {
				t.Errorf("the next request is %q, %v", next, err)
			}
		})
	}
}

// The load talks to the backend, and to servers of net/http's, over all protocols.
func TestRun(t *testing.T) {
	t.Parallel()
	backend, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { backend.Close() })
	go ServeBackend(backend)

	var paths [3]atomic.Int64 // requests by the route's number
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		part := strings.Split(r.URL.Path, "/")
		if n, err := strconv.Atoi(part[2]); err == nil && n < len(paths) {
			paths[n].Add(1)
		}
		if sent, err := io.Copy(io.Discard, r.Body); err != nil || r.Method == http.MethodPost && sent != 1024 {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		w.Write(make([]byte, answers[part[3]]))
	})
	plain := httptest.NewServer(handler)
	t.Cleanup(plain.Close)
	secure := httptest.NewUnstartedServer(handler)
	secure.EnableHTTP2 = true
	secure.StartTLS()
	t.Cleanup(secure.Close)
	wrong := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(wrong.Close)
	short := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("short")) }))
	t.Cleanup(short.Close)

	base := Job{Connections: 3, Method: "GET", Answer: "128", Routes: 3, Warm: time.Millisecond, Time: 20 * time.Millisecond, Proxy: []int{os.Getpid()}}
	tests := []struct {
		name    string
		address string
		change  func(j *Job)
		fails   string
	}{
		{name: "backend", address: backend.Addr().String()},
		{name: "backend, 1 MB", address: backend.Addr().String(), change: func(j *Job) { j.Answer = "1m" }},
		{name: "backend, an answer that it does not have", address: backend.Addr().String(), change: func(j *Job) { j.Answer = "2m" }, fails: "404"},
		{name: "HTTP/1.1", address: plain.Listener.Addr().String()},
		{name: "chunked answers", address: plain.Listener.Addr().String(), change: func(j *Job) { j.Answer = "10k" }},
		{name: "POST", address: plain.Listener.Addr().String(), change: func(j *Job) { j.Method, j.Body = "POST", 1024 }},
		{name: "TLS", address: secure.Listener.Addr().String(), change: func(j *Job) { j.TLS = true }},
		{name: "HTTP/2", address: secure.Listener.Addr().String(), change: func(j *Job) { j.TLS, j.HTTP2, j.Streams = true, true, 4 }},
		{name: "HTTP/2, 1 MB", address: secure.Listener.Addr().String(), change: func(j *Job) { j.TLS, j.HTTP2, j.Streams, j.Answer = true, true, 4, "1m" }},
		{name: "HTTP/2, POST", address: secure.Listener.Addr().String(), change: func(j *Job) { j.TLS, j.HTTP2, j.Streams, j.Method, j.Body = true, true, 4, "POST", 1024 }},
		{name: "another status", address: wrong.Listener.Addr().String(), fails: "404"},
		{name: "another size", address: short.Listener.Addr().String(), fails: "5 bytes instead of 128"},
		{name: "metrics that are not there", address: backend.Addr().String(), change: func(j *Job) { j.Scrape = wrong.URL }, fails: "404"},
		{name: "a process that is not there", address: backend.Addr().String(), change: func(j *Job) { j.Proxy = []int{0} }, fails: "process 0"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			j := base
			j.Address = test.address
			if test.change != nil {
				test.change(&j)
			}
			o, err := Run(context.Background(), j)
			if test.fails != "" {
				if err == nil || !strings.Contains(err.Error(), test.fails) {
					t.Fatalf("error %v, want one with %q", err, test.fails)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if o.Requests < j.Connections || o.Elapsed < j.Time || o.P50 <= 0 || o.P99 < o.P50 || o.RSS <= 0 || o.CPU < o.Busy {
				t.Errorf("measured %+v", o)
			}
		})
	}
	for i := range paths {
		if paths[i].Load() == 0 {
			t.Errorf("route %d was never asked for", i)
		}
	}
}

func TestQuantiles(t *testing.T) {
	t.Parallel()
	var hundred []time.Duration
	for i := range 100 {
		hundred = append(hundred, time.Duration(100-i))
	}
	tests := []struct {
		name     string
		took     []time.Duration
		p50, p99 time.Duration
	}{
		{"none", nil, 0, 0},
		{"one", []time.Duration{7}, 7, 7},
		{"a hundred", hundred, 51, 100},
	}
	for _, test := range tests {
		if p50, p99 := quantiles(test.took); p50 != test.p50 || p99 != test.p99 {
			t.Errorf("%s: %d, %d", test.name, p50, p99)
		}
	}
}
