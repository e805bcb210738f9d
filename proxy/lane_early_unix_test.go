//go:build unix

package proxy

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/isekai-gateway/isekai/store"
)

// smallBuffer makes a socket hold little.
func smallBuffer(option int) func(string, string, syscall.RawConn) error {
	return func(_, _ string, conn syscall.RawConn) (err error) {
		controlErr := conn.Control(func(fd uintptr) {
			err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, option, 4096)
		})
		if controlErr != nil {
			return controlErr
		}
		return err
	}
}

// TestEarlyAnswerReused is TestEarlyAnswer on a connection that was used before, where a
// request is sent and its answer read in one.
func TestEarlyAnswerReused(t *testing.T) {
	t.Parallel()
	long := string(bytes.Repeat([]byte{'x'}, 60<<10))
	lanes(t, func(t *testing.T, fast bool) {
		var conns atomic.Int64
		target := newRawTarget(t, &net.ListenConfig{Control: smallBuffer(syscall.SO_RCVBUF)}, func(conn net.Conn) {
			conns.Add(1)
			for in := bufio.NewReaderSize(conn, 512); ; {
				r, err := http.ReadRequest(in)
				if err != nil {
					return
				}
				if r.URL.Path == "/refused" {
					_, _ = io.WriteString(conn, refusal)
					<-t.Context().Done()
					return
				}
				if n, err := io.Copy(io.Discard, r.Body); err != nil || n != r.ContentLength {
					t.Errorf("got %d bytes, %v", n, err)
				}
				_, _ = io.WriteString(conn, okAnswer)
			}
		})
		g := newRig(t, fast, target.url, new(store.Upstream))
		g.client.Timeout = 20 * time.Second
		g.dial(func(ctx context.Context, network, address string) (net.Conn, error) {
			return (&net.Dialer{Control: smallBuffer(syscall.SO_SNDBUF)}).DialContext(ctx, network, address)
		})
		for range 5 {
			if status, _ := g.do(t, http.MethodPost, "/", long); status != http.StatusOK {
				t.Errorf("it got %d", status)
			}
		}
		if n := conns.Load(); fast && n != 1 {
			t.Errorf("that took %d connections", n)
		}
		if status, text := g.do(t, http.MethodPost, "/refused", long); status != http.StatusRequestEntityTooLarge || text != "no" {
			t.Errorf("it got %d %q", status, text)
		}
	})
}
