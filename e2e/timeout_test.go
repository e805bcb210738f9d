package e2e_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"
)

// TestTimeoutCountsTheWholeExchange sends bodies and answers in drips, each of which
// comes soon: only together they take too long.
func TestTimeoutCountsTheWholeExchange(t *testing.T) {
	t.Parallel()
	g := startGateway(t, settings{sites: tlsSite})
	second := 1
	drip := func(w io.Writer, stop <-chan struct{}) {
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
			}
			if _, err := io.WriteString(w, "."); err != nil {
				return
			}
			if flusher, ok := w.(http.Flusher); ok {
				flusher.Flush()
			}
		}
	}
	t.Run("request", func(t *testing.T) {
		g.eachVersion(t, route{Path: "/request", Method: "POST", Timeout: &second}, func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
		}, func(t *testing.T, v version, path string) {
			req, _ := v.request(t, http.MethodPost, path)
			in, out := io.Pipe()
			defer in.Close()
			go drip(out, req.Context().Done())
			req.Body, req.ContentLength = in, -1
			if resp := v.do(t, req); resp.StatusCode != http.StatusGatewayTimeout {
				t.Errorf("the answer is %s", resp.Status)
			}
		})
	})
	t.Run("answer", func(t *testing.T) {
		g.eachVersion(t, route{Path: "/answer", Timeout: &second}, func(w http.ResponseWriter, r *http.Request) {
			drip(w, r.Context().Done())
		}, func(t *testing.T, v version, path string) {
			req, _ := v.request(t, http.MethodGet, path)
			resp := v.do(t, req)
			// What is cut must not look whole.
			if body, err := io.ReadAll(resp.Body); err == nil || req.Context().Err() != nil {
				t.Errorf("the answer is %q (%v)", body, err)
			}
		})
	})
}

// TestOneWayStreams uses an upgraded connection in one direction only: that is
// activity, and after it silence.
func TestOneWayStreams(t *testing.T) {
	t.Parallel()
	g := startGateway(t, settings{})
	second := 1
	const rounds, pause = 25, 100 * time.Millisecond
	const switched = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
	send := func(w io.Writer) error {
		for range rounds {
			if _, err := io.WriteString(w, "."); err != nil {
				return err
			}
			time.Sleep(pause)
		}
		return nil
	}
	var heard atomic.Int64
	ended := make(chan struct{}, 1)
	g.create(route{Path: "/up", Timeout: &second, TargetURL: "http://" + rawUpstream(t, func(conn net.Conn) {
		r := bufio.NewReader(conn)
		if _, err := readHead(r); err != nil {
			return
		}
		say(switched)(conn)
		n, _ := io.Copy(io.Discard, r)
		heard.Store(n)
		ended <- struct{}{}
	})})
	g.create(route{Path: "/down", Timeout: &second, TargetURL: "http://" + rawUpstream(t, func(conn net.Conn) {
		if _, err := readHead(bufio.NewReader(conn)); err != nil {
			return
		}
		say(switched)(conn)
		_ = send(conn)
		silence(conn)
	})})
	open := func(t *testing.T, path string) (net.Conn, *bufio.Reader) {
		t.Helper()
		conn := dialRaw(t, g.http)
		fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", path)
		r := bufio.NewReader(conn)
		if head, err := readHead(r); err != nil {
			t.Fatalf("the answer is %q (%v)", head, err)
		}
		return conn, r
	}
	t.Run("up", func(t *testing.T) {
		t.Parallel()
		conn, r := open(t, "/up")
		if err := send(conn); err != nil {
			t.Fatal(err)
		}
		await(t, ended, "silence ends it")
		if n := heard.Load(); n != rounds {
			t.Errorf("the upstream has heard %d bytes, want %d", n, rounds)
		}
		if rest, err := io.ReadAll(r); isTimeout(err) || len(rest) > 0 {
			t.Errorf("to the client it ends with %q (%v)", rest, err)
		}
	})
	t.Run("down", func(t *testing.T) {
		t.Parallel()
		_, r := open(t, "/down")
		if text, err := io.ReadAll(r); isTimeout(err) || len(text) != rounds {
			t.Errorf("the client has heard %d bytes (%v), want %d", len(text), err, rounds)
		}
	})
}
