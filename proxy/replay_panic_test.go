package proxy

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/isekai-gateway/isekai/store"
)

// readerFunc is a plugin's reader around a request's body.
type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
func (readerFunc) Close() error                 { return nil }

// TestBodyPanics has a reader of the request's body panic, on goroutines on which that
// would end the process. The request's own goroutine has to see it.
func TestBodyPanics(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		value  any
		late   bool // once a target was connected to, which the fast lane leaves to the full one
		expect func(any) bool
	}{
		{name: "at once", value: "a bug", expect: isSourcePanic},
		{name: "late", value: "a bug", late: true, expect: isSourcePanic},
		{name: "abort", value: http.ErrAbortHandler, expect: func(p any) bool { return p == http.ErrAbortHandler }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			lanes(t, func(t *testing.T, fast bool) {
				begun := make(chan struct{}, 10)
				target := newRawTarget(t, new(net.ListenConfig), func(conn net.Conn) {
					begun <- struct{}{}
					for in := bufio.NewReader(conn); ; {
						r, err := http.ReadRequest(in)
						if err != nil {
							return
						}
						if _, err := io.Copy(io.Discard, r.Body); err != nil {
							return
						}
						_, _ = io.WriteString(conn, okAnswer)
					}
				})
				g := newRig(t, fast, target.url, new(store.Upstream))
				g.change = func(r *http.Request) {
					if r.Method == http.MethodPost {
						r.Body = readerFunc(func([]byte) (int, error) {
							if tt.late {
								<-begun
							}
							panic(tt.value)
						})
					}
				}
				r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, g.front.URL, strings.NewReader("hello"))
				if err != nil {
					t.Fatal(err)
				}
				if resp, err := g.client.Do(r); err == nil {
					_ = resp.Body.Close()
					t.Errorf("it got %d: the panic was not the request's", resp.StatusCode)
				}
				g.mu.Lock()
				if len(g.panics) != 1 || !tt.expect(g.panics[0]) {
					t.Errorf("the request's goroutine saw %v", g.panics)
				}
				g.mu.Unlock()
				if status, _ := g.do(t, http.MethodGet, "/", ""); status != http.StatusOK {
					t.Errorf("the next request got %d", status)
				}
			})
		})
	}
}

// isSourcePanic says whether p tells of the panic and of where that was.
func isSourcePanic(p any) bool {
	source, ok := p.(*sourcePanic)
	return ok && strings.Contains(source.String(), "a bug") && strings.Contains(source.String(), "TestBodyPanics")
}

// TestBodyNoReader has requests whose body is not what they say.
func TestBodyNoReader(t *testing.T) {
	t.Parallel()
	for name, body := range map[string]io.ReadCloser{
		"nil":      nil,
		"none":     http.NoBody,
		"too much": readerFunc(func(p []byte) (int, error) { return len(p) + 1, nil }),
		"negative": readerFunc(func([]byte) (int, error) { return -1, nil }),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			lanes(t, func(t *testing.T, fast bool) {
				target := newRawTarget(t, new(net.ListenConfig), func(conn net.Conn) {
					_, _ = io.Copy(io.Discard, conn)
				})
				g := newRig(t, fast, target.url, new(store.Upstream))
				g.change = func(r *http.Request) { r.Body = body }
				if status, text := g.do(t, http.MethodPost, "/", "hello"); status != http.StatusBadGateway && status != StatusClientClosedRequest {
					t.Errorf("it got %d %s", status, text)
				}
			})
		})
	}
}
