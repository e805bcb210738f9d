package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/isekai-gateway/isekai/store"
)

// rig is a forwarder behind a server.
type rig struct {
	f      *Forwarder
	front  *httptest.Server
	client *http.Client
	change func(*http.Request) // before a request is forwarded, as a plugin; may be nil
	traced bool

	mu     sync.Mutex
	panics []any
}

// lanes runs a test with a fast lane and without one.
func lanes(t *testing.T, test func(t *testing.T, fast bool)) {
	t.Helper()
	for name, fast := range map[string]bool{"fast": true, "full": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, fast)
		})
	}
}

// newRig makes a forwarder to a target, or to those of u.
func newRig(t *testing.T, fast bool, url string, u *store.Upstream) *rig {
	t.Helper()
	target, err := ParseTarget(url, nil)
	if err != nil {
		t.Fatal(err)
	}
	g := &rig{client: &http.Client{Transport: new(http.Transport), Timeout: time.Minute}}
	var registry *Registry
	// To provision changes what is global.
	if err := Serialize(func() error {
		ctx, err := caddy.ProvisionContext(new(caddy.Config))
		if err != nil {
			return err
		}
		if registry, err = NewRegistry(ctx, new(Policy), new(States), fast); err != nil {
			return err
		}
		g.f, err = registry.Acquire(target, u, false)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	g.front = httptest.NewServer(g)
	t.Cleanup(func() {
		g.client.CloseIdleConnections()
		g.front.Close()
		if err := g.f.Release(); err != nil {
			t.Error(err)
		}
		registry.Close()
	})
	return g
}

// dial replaces how both lanes connect.
func (g *rig) dial(dial dialFunc) {
	g.f.pool.transport.DialContext = dial
	if g.f.pool.lane != nil {
		g.f.pool.lane.dial = dial
	}
}

// ServeHTTP implements http.Handler, with what the forwarder expects of a site and of a
// pipeline around it.
func (g *rig) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	defer func() {
		if p := recover(); p != nil {
			g.mu.Lock()
			defer g.mu.Unlock()
			g.panics = append(g.panics, p)
			panic(http.ErrAbortHandler)
		}
	}()
	_ = http.NewResponseController(w).EnableFullDuplex() // for answers before the request's end
	if g.change != nil {
		g.change(r)
	}
	ctx := context.WithValue(r.Context(), caddyhttp.ServerCtxKey, new(caddyhttp.Server))
	ctx = context.WithValue(ctx, caddy.ReplacerCtxKey, caddyhttp.NewTestReplacer(r))
	ctx = context.WithValue(ctx, caddyhttp.VarsCtxKey, map[string]any{
		caddyhttp.TrustedProxyVarKey: false, caddyhttp.ClientIPVarKey: "192.0.2.1",
	})
	ctx = context.WithValue(ctx, CallKey{}, &Call{Traced: g.traced})
	err := g.f.ServeHTTP(w, r.WithContext(ctx))
	if failed, ok := errors.AsType[caddyhttp.HandlerError](err); ok {
		http.Error(w, err.Error(), failed.StatusCode)
	}
}

// do sends a request and returns the answer's status and body.
func (g *rig) do(t *testing.T, method, path, body string, header ...string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, g.front.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := g.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Error(err)
	}
	return resp.StatusCode, string(text)
}

// fastTries returns how many tries were made on the fast lane.
func (g *rig) fastTries() uint64 { return g.f.pool.state.fast.Load() }

// rawTarget serves each connection with serve, and closes it then.
type rawTarget struct {
	net.Listener
	url string
}

func newRawTarget(t *testing.T, listen *net.ListenConfig, serve func(net.Conn)) *rawTarget {
	t.Helper()
	listener, err := listen.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var (
		mu    sync.Mutex
		conns []net.Conn
		wg    sync.WaitGroup
	)
	wg.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, conn)
			mu.Unlock()
			wg.Go(func() {
				defer conn.Close()
				serve(conn)
			})
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		mu.Lock()
		for _, conn := range conns {
			_ = conn.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return &rawTarget{listener, "http://" + listener.Addr().String()}
}
