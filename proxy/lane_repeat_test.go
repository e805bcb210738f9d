package proxy

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/isekai-gateway/isekai/store"
)

const okAnswer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

// TestDeadConnection has a target take a request on a connection that was used before,
// and die. What was sent may have been done, so that only what http.Transport sends again
// by itself is sent again without a decision of the route's retries.
func TestDeadConnection(t *testing.T) {
	t.Parallel()
	one := 1
	tests := []struct {
		name, method, body string
		key                bool
		gone               bool // the target can't be connected to then, and there is another
		retry              *store.Retry
		status             int
		seen, elsewhere    int64
	}{
		{name: "get", method: "GET", status: 200, seen: 2},
		{name: "post", method: "POST", status: 502, seen: 1},
		{name: "post with a key", method: "POST", key: true, status: 200, seen: 2},
		{name: "post with a key and a body", method: "POST", body: "pay", key: true, status: 502, seen: 1},
		{name: "put with a body", method: "PUT", body: "x", status: 502, seen: 1},
		{name: "get, gone", method: "GET", gone: true, status: 200, seen: 1, elsewhere: 1},
		{name: "get, gone, not to be repeated", method: "GET", gone: true, retry: &store.Retry{Methods: []string{"PUT"}}, status: 502, seen: 1},
		{name: "post with a key, gone", method: "POST", key: true, gone: true, status: 502, seen: 1},
		{name: "post with a key and a body, gone", method: "POST", body: "pay", key: true, gone: true, status: 502, seen: 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			lanes(t, func(t *testing.T, fast bool) {
				var seen, elsewhere atomic.Int64
				var target *rawTarget
				target = newRawTarget(t, new(net.ListenConfig), func(conn net.Conn) {
					in := bufio.NewReader(conn)
					for {
						r, err := http.ReadRequest(in)
						if err != nil {
							return
						}
						_, _ = io.Copy(io.Discard, r.Body)
						if r.URL.Path == "/dies" && seen.Add(1) == 1 {
							if tt.gone {
								_ = target.Close()
							}
							return
						}
						_, _ = io.WriteString(conn, okAnswer)
					}
				})
				u := new(store.Upstream)
				if tt.gone {
					other := newRawTarget(t, new(net.ListenConfig), func(conn net.Conn) {
						if _, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
							elsewhere.Add(1)
							_, _ = io.WriteString(conn, okAnswer)
						}
					})
					u = &store.Upstream{
						Policy: "first", Retries: &one, Retry: tt.retry,
						Targets: []store.UpstreamTarget{{URL: target.url}, {URL: other.url}},
					}
				}
				g := newRig(t, fast, target.url, u)
				if status, _ := g.do(t, http.MethodGet, "/", ""); status != http.StatusOK {
					t.Fatalf("the first request got %d", status)
				}
				var header []string
				if tt.key {
					header = []string{"Idempotency-Key", "k"}
				}
				if status, text := g.do(t, tt.method, "/dies", tt.body, header...); status != tt.status {
					t.Errorf("it got %d %s, want %d", status, text, tt.status)
				}
				if seen.Load() != tt.seen || elsewhere.Load() != tt.elsewhere {
					t.Errorf("it was sent %d times to the target and %d elsewhere, want %d and %d",
						seen.Load(), elsewhere.Load(), tt.seen, tt.elsewhere)
				}
				if fast != (g.fastTries() > 0) {
					t.Errorf("the fast lane had %d tries", g.fastTries())
				}
			})
		})
	}
}
