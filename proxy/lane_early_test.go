package proxy

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/isekai-gateway/isekai/store"
)

const refusal = "HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno"

// readFields reads the beginning of a request, up to its body.
func readFields(in *bufio.Reader) error {
	for {
		if line, err := in.ReadString('\n'); err != nil || line == "\r\n" {
			return err
		}
	}
}

// pipeTo makes a rig connect by pipes, in which nothing is sent that nobody reads.
func (g *rig) pipeTo(t *testing.T, serve func(net.Conn)) {
	t.Helper()
	var wg sync.WaitGroup
	ctx, stop := context.WithCancel(t.Context())
	t.Cleanup(func() {
		stop()
		wg.Wait()
	})
	g.dial(func(context.Context, string, string) (net.Conn, error) {
		near, far := net.Pipe()
		context.AfterFunc(ctx, func() { _ = far.Close() })
		wg.Go(func() {
			defer far.Close()
			serve(far)
		})
		return near, nil
	})
}

// TestEarlyAnswer has targets answer before they have read the whole request, which does
// not fit in between.
func TestEarlyAnswer(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("0123456789", 6<<10)
	patience := &store.UpstreamTimeouts{ResponseHeader: 0.1}
	tests := []struct {
		name   string
		u      store.Upstream
		serve  func(*testing.T, net.Conn, *bufio.Reader)
		status int
		text   string
		racy   bool // http.Transport may look at the failed Write first
	}{
		{name: "and closes", racy: true, serve: func(_ *testing.T, conn net.Conn, _ *bufio.Reader) {
			_, _ = io.WriteString(conn, refusal)
		}, status: 413, text: "no"},
		{name: "and stays", serve: func(t *testing.T, conn net.Conn, _ *bufio.Reader) {
			_, _ = io.WriteString(conn, refusal)
			_, _ = conn.Read(make([]byte, 1)) // of the body, and no more
			<-t.Context().Done()
		}, status: 413, text: "no"},
		{name: "and keeps the connection", serve: func(t *testing.T, conn net.Conn, _ *bufio.Reader) {
			_, _ = io.WriteString(conn, okAnswer)
			<-t.Context().Done()
		}, status: 200, text: "ok"},
		{name: "as it reads", serve: func(_ *testing.T, conn net.Conn, in *bufio.Reader) {
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 61440\r\n\r\n")
			_, _ = io.CopyN(conn, in, int64(len(long)))
		}, status: 200, text: long},
		{name: "never", serve: func(_ *testing.T, _ net.Conn, in *bufio.Reader) {
			_, _ = io.Copy(io.Discard, in)
		}, u: store.Upstream{Timeouts: patience}, status: 504},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			lanes(t, func(t *testing.T, fast bool) {
				if tt.racy && !fast {
					return
				}
				g := newRig(t, fast, "http://target.test", &tt.u)
				g.client.Timeout = 20 * time.Second
				g.pipeTo(t, func(conn net.Conn) {
					in := bufio.NewReaderSize(conn, 512)
					if readFields(in) == nil {
						tt.serve(t, conn, in)
					}
				})
				status, text := g.do(t, http.MethodPost, "/", long)
				if status != tt.status || tt.text != "" && text != tt.text {
					t.Errorf("it got %d and %d bytes, want %d and %d", status, len(text), tt.status, len(tt.text))
				}
				if fast != (g.fastTries() == 1) {
					t.Errorf("the fast lane had %d tries", g.fastTries())
				}
			})
		})
	}
}

// brokenPipe is a connection that can't be written to.
type brokenPipe struct{ net.Conn }

var errBrokenPipe = errors.New("the pipe is broken")

func (brokenPipe) Write([]byte) (int, error) { return 0, errBrokenPipe }

// TestLastWords has a target close a connection before it has got a request, and say why.
func TestLastWords(t *testing.T) {
	t.Parallel()
	for name, body := range map[string]string{"short": "x", "long": strings.Repeat("x", 60<<10)} {
		for said, want := range map[string]int{refusal: 413, refusal[:20]: 502, "": 502} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				g := newRig(t, true, "http://target.test", new(store.Upstream))
				g.client.Timeout = 20 * time.Second
				silent := make(chan struct{})
				t.Cleanup(func() { close(silent) })
				g.dial(func(context.Context, string, string) (net.Conn, error) {
					near, far := net.Pipe()
					go func() {
						defer far.Close()
						_, _ = io.WriteString(far, said)
						<-silent
					}()
					return brokenPipe{near}, nil
				})
				status, text := g.do(t, http.MethodPost, "/", body)
				if status != want || want == 502 && !strings.Contains(text, errBrokenPipe.Error()) {
					t.Errorf("with %q said it got %d %s", said, status, text)
				}
			})
		}
	}
}
