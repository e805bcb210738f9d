package e2e_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
)

// TestLanesFailAlike ends exchanges in each way that is not the answer's, on either
// lane: the client is told the same, the target is blamed or not, and nothing of the
// exchange is left.
func TestLanesFailAlike(t *testing.T) {
	t.Parallel()
	l := startLanes(t, settings{})
	arrived := make(chan struct{}, 8)
	silent := func(_ http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		_, _ = io.Copy(io.Discard, r.Body) // only behind it does net/http see the connection end
		<-r.Context().Done()
	}
	ask := func(_ *testing.T, g *gateway, r route) int { return g.send(http.MethodGet, r.Path).status }
	once := 0
	for name, c := range map[string]struct {
		upstream upstreamSettings
		timeout  int
		do       func(*testing.T, *gateway, route) int // returns the answer's status
		want     int
		failures int
	}{
		"a body that does not come": {timeout: 1, want: http.StatusGatewayTimeout, do: func(t *testing.T, g *gateway, r route) int {
			conn := dialRaw(t, g.http)
			fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nbegun", r.Path)
			resp, err := readFinal(bufio.NewReader(conn))
			if err != nil {
				t.Fatal(err)
			}
			return resp.StatusCode
		}},
		"a silent target": {timeout: 1, want: http.StatusGatewayTimeout, failures: 1, do: ask},
		"a target that does not begin": {
			upstream: upstreamSettings{Timeouts: map[string]any{"response_header": 0.2}},
			timeout:  30, want: http.StatusGatewayTimeout, failures: 1, do: ask,
		},
		"a client that leaves": {timeout: 30, do: func(t *testing.T, g *gateway, r route) int {
			ctx, leave := context.WithCancel(t.Context())
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+g.http+r.Path, nil)
			if err != nil {
				t.Fatal(err)
			}
			go func() {
				<-arrived
				leave()
			}()
			resp, err := http.DefaultTransport.RoundTrip(req)
			if err == nil {
				_ = resp.Body.Close()
			}
			if !errors.Is(err, context.Canceled) {
				t.Errorf("the client's request ended by %v", err)
			}
			return 0
		}},
	} {
		u := c.upstream
		u.Retries = &once
		r := l.create(route{Method: "GET,POST", Path: "/" + name[2:5], TargetURL: newUpstream(t, silent).URL, Timeout: &c.timeout, Upstream: &u})
		l.each(func(lane string, g *gateway) {
			got := c.do(t, g, r)
			if len(arrived) > 0 {
				<-arrived
			}
			if got != c.want {
				t.Errorf("%s on the %s lane: the answer is %d, want %d", name, lane, got, c.want)
			}
			eventually(t, servedWithin, name+" on the "+lane+" lane is over", func() error {
				pool := g.pool(r.ID)
				if target := pool.Targets[0]; target.InFlight != 0 || target.Failures != c.failures || pool.Requests != 1 {
					return fmt.Errorf("%+v", pool)
				}
				return nil
			})
		})
	}
}

// TestFastLaneOverTLS has a target that can't speak HTTP/2: once it was asked, all goes
// by the fast lane, under the route's settings of TLS.
func TestFastLaneOverTLS(t *testing.T) {
	t.Parallel()
	g := startGateway(t, settings{})
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.TLS.ServerName+" "+r.Proto)
	}))
	s.StartTLS()
	t.Cleanup(s.Close)
	for _, protocol := range []string{"", "http1"} {
		u := upstreamSettings{Protocol: protocol, TLS: &tlsSettings{ServerName: "example.com", CA: certificateOf(t, s)}}
		r := g.create(route{Path: "/tls" + protocol, TargetURL: s.URL, Upstream: &u})
		for range 5 {
			g.wantBody(r.Path, "example.com HTTP/1.1")
		}
		if pool := g.pool(r.ID); pool.FastLane != 5 {
			t.Errorf("with protocol %q, of 5 requests %d took the fast lane", protocol, pool.FastLane)
		}
		// The certificate is for example.com, and of an authority that is not the system's.
		for name, wrong := range map[string]tlsSettings{
			"another name": {ServerName: "other.example", CA: certificateOf(t, s)}, "the system's authorities": {ServerName: "example.com"},
		} {
			bad := upstreamSettings{Protocol: protocol, TLS: &wrong}
			r := g.create(route{Path: "/bad" + protocol + name[:3], TargetURL: s.URL, Upstream: &bad})
			if a := g.send(http.MethodGet, r.Path); a.status != http.StatusBadGateway {
				t.Errorf("with %s the answer is %s", name, a)
			}
		}
	}
}
