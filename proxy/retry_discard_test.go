package proxy

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/isekai-gateway/isekai/store"
)

// TestDiscardIsBounded has a target answer with a status to repeat, and then not come to
// the end of that answer.
func TestDiscardIsBounded(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"silent", "slow"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			lanes(t, func(t *testing.T, fast bool) {
				var requests atomic.Int64
				closed := make(chan struct{})
				target := newRawTarget(t, new(net.ListenConfig), func(conn net.Conn) {
					in := bufio.NewReader(conn)
					for {
						if _, err := http.ReadRequest(in); err != nil {
							return
						}
						if requests.Add(1) > 1 {
							_, _ = io.WriteString(conn, okAnswer)
							continue
						}
						defer close(closed)
						_, _ = io.WriteString(conn, "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 16000\r\n\r\n")
						if name == "silent" {
							_, _ = io.Copy(io.Discard, in)
							return
						}
						tick := time.NewTicker(100 * time.Millisecond)
						defer tick.Stop()
						for range tick.C {
							if _, err := io.WriteString(conn, "x"); err != nil {
								return
							}
						}
					}
				})
				one := 1
				g := newRig(t, fast, target.url, &store.Upstream{Retries: &one, Retry: &store.Retry{Statuses: []int{503}}})
				g.client.Timeout = 20 * time.Second
				if status, text := g.do(t, http.MethodGet, "/", ""); status != http.StatusOK || text != "ok" {
					t.Errorf("it got %d %q", status, text)
				}
				select {
				case <-closed:
				case <-time.After(20 * time.Second):
					t.Error("the first connection stays open")
				}
			})
		})
	}
}
