package proxy

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/isekai-gateway/isekai/store"
)

// discardWriter is an answer that nobody reads.
type discardWriter struct{ h http.Header }

func (w *discardWriter) Header() http.Header         { return w.h }
func (w *discardWriter) Write(p []byte) (int, error) { return len(p), nil }
func (w *discardWriter) WriteHeader(int)             {}

// echo answers every request on a connection alike, as cheaply as can be.
func echo(b *testing.B) string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				buf := make([]byte, 8<<10)
				for {
					if _, err := conn.Read(buf); err != nil {
						_ = conn.Close()
						return
					}
					_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 13\r\nDate: Wed, 25 Nov 2026 00:00:00 GMT\r\nServer: x\r\nCache-Control: no-store\r\n\r\n{\"ok\": true}\n")
				}
			}()
		}
	}()
	return listener.Addr().String()
}

func BenchmarkLanes(b *testing.B) {
	for name, fast := range map[string]bool{"fast": true, "full": false} {
		b.Run(name, func(b *testing.B) {
			ctx, err := caddy.ProvisionContext(new(caddy.Config))
			if err != nil {
				b.Fatal(err)
			}
			target, err := ParseTarget("http://"+echo(b), nil)
			if err != nil {
				b.Fatal(err)
			}
			registry, err := NewRegistry(ctx, new(Policy), new(States), fast)
			if err != nil {
				b.Fatal(err)
			}
			defer registry.Close()
			var f *Forwarder
			if err := Serialize(func() error {
				f, err = registry.Acquire(target, new(store.Upstream), false)
				return err
			}); err != nil {
				b.Fatal(err)
			}
			defer func() { _ = f.Release() }()
			r := httptest.NewRequest(http.MethodGet, "http://example.com/a/b?c=d", nil)
			r.Header = http.Header{
				"User-Agent": {"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"},
				"Accept":     {"text/html,application/xhtml+xml"}, "Accept-Language": {"en-US,en;q=0.5"},
				"Accept-Encoding": {"gzip, deflate, br"}, "Cookie": {"session=0123456789abcdef"},
			}
			w := &discardWriter{make(http.Header)}
			repl := caddyhttp.NewTestReplacer(r)
			server := context.WithValue(r.Context(), caddyhttp.ServerCtxKey, new(caddyhttp.Server))
			server = context.WithValue(server, caddy.ReplacerCtxKey, repl)
			server = context.WithValue(server, caddyhttp.VarsCtxKey, map[string]any{
				caddyhttp.TrustedProxyVarKey: false, caddyhttp.ClientIPVarKey: "192.0.2.1",
			})
			b.ReportAllocs()
			for b.Loop() {
				call := new(Call)
				clear(w.h)
				if err := f.ServeHTTP(w, r.WithContext(context.WithValue(server, CallKey{}, call))); err != nil {
					b.Fatal(err)
				}
			}
			if got := f.pool.state.fast.Load() > 0; got != fast {
				b.Fatalf("the fast lane was used: %v", got)
			}
		})
	}
}
