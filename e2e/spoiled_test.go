package e2e_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

// TestSpoiledBodies has clients send bodies that are cut, malformed or too long. That
// is not the target's failure: neither its health nor its breaker hears of it, and
// nothing is tried again.
func TestSpoiledBodies(t *testing.T) {
	t.Parallel()
	g := startGateway(t, settings{})
	a, b := newBackend(t, "a"), newBackend(t, "b")
	for _, backend := range []*backend{a, b} {
		echoBody(backend)
	}
	for name, retries := range map[string]int{"with": 2, "without": 0} {
		u := poolOf(a, b)
		u.Policy, u.Retries = "first", &retries
		u.Health = map[string]any{"passive": map[string]any{"max_fails": 1, "fail_duration": 3600}}
		u.CircuitBreaker = map[string]any{"min_requests": 1, "failure_ratio": 0.01, "open_for": 3600}
		r := g.create(route{Path: "/" + name, Method: "PUT", TargetURL: a.url(), Upstream: u, Limits: map[string]any{"body_max": 1000}})
		for what, c := range map[string]struct {
			request string
			status  int // 0: the client does not wait for the answer
		}{
			"malformed chunk": {"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n", 400},
			"too long":        {"Transfer-Encoding: chunked\r\n\r\n800\r\n" + strings.Repeat("x", 0x800) + "\r\n0\r\n\r\n", 413},
			"cut":             {"Content-Length: 100\r\n\r\nabc", 0},
		} {
			conn, err := net.Dial("tcp", g.http)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := fmt.Fprintf(conn, "PUT /%s HTTP/1.1\r\nHost: x\r\n%s", name, c.request); err != nil {
				t.Fatal(err)
			}
			if c.status == 0 {
				_ = conn.(*net.TCPConn).CloseWrite()
				_, _ = io.Copy(io.Discard, conn)
			} else if resp, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil || resp.StatusCode != c.status {
				t.Errorf("%s retries, %s: the answer is %v, %v; want %d", name, what, resp, err, c.status)
			} else {
				resp.Body.Close()
			}
			conn.Close()
		}
		if got := g.send(http.MethodPut, "/"+name, payload("fine")); string(got.body) != "fine" {
			t.Errorf("a request after those is answered %s", got)
		}
		pool := g.pool(r.ID)
		if got := pool.Targets[0]; got.State != "healthy" || got.Breaker != "closed" || got.RecentFailures != 0 || got.Failures != 0 || pool.Retries != 0 || pool.Targets[1].Requests != 0 {
			t.Errorf("%s retries, the pool is %+v", name, pool)
		}
	}
}
