package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/isekai-gateway/isekai/store"
)

// startTLS starts a target that speaks TLS and, by the protocol auto, chooses what else.
func startTLS(t *testing.T, http2 bool, serve http.HandlerFunc) (target *httptest.Server, conns *atomic.Int64) {
	t.Helper()
	conns = new(atomic.Int64)
	target = httptest.NewUnstartedServer(serve)
	target.EnableHTTP2 = http2
	target.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			conns.Add(1)
		}
	}
	target.StartTLS()
	t.Cleanup(target.Close)
	return target, conns
}

var insecure = store.Upstream{TLS: &store.UpstreamTLS{InsecureSkipVerify: true}}

// wantFast sends requests and checks how many of them were on the fast lane.
func (g *rig) wantFast(t *testing.T, requests int, want uint64) {
	t.Helper()
	before := g.fastTries()
	for range requests {
		if status, text := g.do(t, http.MethodGet, "/", ""); status != http.StatusOK {
			t.Fatalf("got %d %s", status, text)
		}
	}
	if got := g.fastTries() - before; got != want {
		t.Errorf("%d of %d requests were on the fast lane, want %d", got, requests, want)
	}
}

// TestFailedConnect has a connect fail to a target that is known to speak HTTP/1.1.
func TestFailedConnect(t *testing.T) {
	t.Parallel()
	held, release := make(chan struct{}), make(chan struct{})
	target, _ := startTLS(t, false, func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/held" {
			close(held)
			<-release
		}
	})
	g := newRig(t, true, target.URL, &insecure)
	g.wantFast(t, 2, 2)
	g.dial(func(context.Context, string, string) (net.Conn, error) {
		return nil, reverseproxy.NewDialError(errors.New("no"))
	})
	done := make(chan int)
	go func() {
		status, _ := g.do(t, http.MethodGet, "/held", "")
		done <- status
	}()
	<-held
	if status, _ := g.do(t, http.MethodGet, "/", ""); status != http.StatusBadGateway {
		t.Errorf("without a connection it got %d", status)
	}
	close(release)
	if status := <-done; status != http.StatusOK {
		t.Errorf("the held one got %d", status)
	}
	g.wantFast(t, 5, 5)
}

// TestAskingByIdle has a target asked again what it speaks, of which there is a connection
// that says so.
func TestAskingByIdle(t *testing.T) {
	t.Parallel()
	target, conns := startTLS(t, false, func(http.ResponseWriter, *http.Request) {})
	g := newRig(t, true, target.URL, &insecure)
	g.wantFast(t, 2, 2)
	g.f.pool.lane.learn(target.Listener.Addr().String(), time.Now()) // it is to be asked
	g.wantFast(t, 5, 5)
	if n := conns.Load(); n != 1 {
		t.Errorf("it took %d connections", n)
	}
}

// TestTracedLearn has requests that are all traced. Such a request does not ask a target
// what it speaks, but the full lane's answer tells.
func TestTracedLearn(t *testing.T) {
	t.Parallel()
	for name, http2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			target, conns := startTLS(t, http2, func(w http.ResponseWriter, _ *http.Request) {
				_, _ = io.WriteString(w, "ok")
			})
			g := newRig(t, true, target.URL, &insecure)
			g.traced = true
			g.wantFast(t, 1, 0)
			if !http2 {
				g.wantFast(t, 5, 5)
				return
			}
			g.traced = false
			g.wantFast(t, 5, 0)
			if n := conns.Load(); n != 1 {
				t.Errorf("it took %d connections: it was asked once more", n)
			}
		})
	}
}
