package e2e_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// hidden is the request that the attacker hides in a body. It is as short as a
// request can be, so that many fit, and its length sets how many alignments
// there are.
const hidden = "GET /hidden HTTP/1.1\r\nHost: x\r\n\r\n"

const attackSize = 1 << 20

// attackBody is filled with hidden requests that begin after shift other bytes.
func attackBody(shift int) []byte {
	body := bytes.Repeat([]byte{'-'}, shift)
	return append(body, bytes.Repeat([]byte(hidden), (attackSize-shift)/len(hidden))...)
}

// framings are how a body can be sent.
var framings = map[string]func(body []byte) (head string, framed []byte){
	"content-length": func(body []byte) (string, []byte) {
		return fmt.Sprintf("Content-Length: %d\r\n", len(body)), body
	},
	"one chunk": func(body []byte) (string, []byte) {
		return "Transfer-Encoding: chunked\r\n", fmt.Appendf(nil, "%x\r\n%s\r\n0\r\n\r\n", len(body), body)
	},
	"chunks": func(body []byte) (string, []byte) {
		var b []byte
		for len(body) > 0 {
			n := min(len(body), 4096)
			b = fmt.Appendf(b, "%x\r\n%s\r\n", n, body[:n])
			body = body[n:]
		}
		return "Transfer-Encoding: chunked\r\n", append(b, "0\r\n\r\n"...)
	},
}

// TestNoSmuggling attacks with bodies that hide requests, through upstreams that
// answer before they have read the body. Caddy's reverse_proxy with its default
// options lets thousands through.
func TestNoSmuggling(t *testing.T) {
	t.Parallel()
	for name, servers := range map[string]string{
		"default options":   "",
		"no body idle time": "timeouts {\n read_body_idle -1s\n }",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newAttack(t, servers)
			for _, path := range []string{"/answers", "/keeps", "/resets", "/nothing", "/limited", "/healthz"} {
				for framing, frame := range framings {
					t.Run(path[1:]+", "+framing, func(t *testing.T) {
						t.Parallel()
						var wg sync.WaitGroup
						for shift := range len(hidden) {
							wg.Go(func() { a.try(t, path, shift, frame) })
							if shift%8 == 7 {
								wg.Wait()
							}
						}
						wg.Wait()
					})
				}
			}
			t.Run("drip", func(t *testing.T) {
				t.Parallel()
				a.drip(t, "/answers")
				a.drip(t, "/keeps")
			})
			t.Run("honest", func(t *testing.T) {
				t.Parallel()
				a.honest(t)
			})
		})
	}
}

// attack is a gateway under attack.
type attack struct {
	g        *gateway
	smuggled atomic.Int64 // requests for /hidden that an upstream has seen
}

func newAttack(t *testing.T, servers string) *attack {
	a := &attack{g: startGateway(t, settings{servers: servers})}
	const early = "HTTP/1.1 401 Unauthorized\r\nContent-Length: 5\r\n\r\nearly"
	released := make(chan struct{})
	t.Cleanup(func() { close(released) })
	counting := newUpstream(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/hidden" {
			a.smuggled.Add(1)
			return
		}
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprintf(w, "%d", n)
	})
	upstreams := map[string]func(net.Conn, *bufio.Reader){
		"/answers": func(conn net.Conn, r *bufio.Reader) {
			// It reads what has come with the header, answers and closes.
			_, _ = io.CopyN(io.Discard, r, 4096)
			_, _ = io.WriteString(conn, early)
		},
		"/keeps": func(conn net.Conn, _ *bufio.Reader) {
			_, _ = io.WriteString(conn, early)
			hold(conn, released)
		},
		"/resets": func(conn net.Conn, _ *bufio.Reader) { reset(conn) },
	}
	for path, serve := range upstreams {
		address := rawUpstream(t, func(conn net.Conn) {
			r := bufio.NewReader(conn)
			if head, err := readHead(r); err == nil && !strings.Contains(head, " /hidden ") {
				serve(conn, r)
			} else if err == nil {
				a.smuggled.Add(1)
			}
		})
		a.g.create(route{Path: path, Method: "*", TargetURL: "http://" + address})
	}
	limited := a.g.create(route{Path: "/limited", Method: "*", TargetURL: counting.URL, RateLimit: 1, Limits: map[string]any{"window": 86_400}})
	a.g.send(http.MethodGet, "/limited")
	if got := a.g.send(http.MethodGet, "/limited"); got.status != http.StatusTooManyRequests {
		t.Fatalf("route %d is not used up: %s", limited.ID, got)
	}
	a.g.create(route{Path: "/honest", Method: "PUT", TargetURL: counting.URL})
	a.g.create(route{Path: "/hidden", Method: "*", TargetURL: counting.URL})
	return a
}

// try sends one body and reads until the connection ends. It must have carried
// one answer, or none.
func (a *attack) try(t *testing.T, path string, shift int, frame func([]byte) (string, []byte)) {
	head, body := frame(attackBody(shift))
	conn := dialRaw(t, a.g.http)
	defer conn.Close()
	written := make(chan struct{})
	go func() {
		defer close(written)
		_, _ = fmt.Fprintf(conn, "PUT %s HTTP/1.1\r\nHost: x\r\n%s\r\n", path, head)
		_, _ = conn.Write(body)
		// An honest end of the body, and the end of what is sent.
		_ = conn.(*net.TCPConn).CloseWrite()
	}()
	got, err := io.ReadAll(conn)
	if isTimeout(err) {
		t.Errorf("shift %d: the connection hangs, after %.200q", shift, got)
	}
	conn.Close()
	<-written
	a.check(t, shift, got)
}

func (a *attack) check(t *testing.T, shift int, got []byte) {
	if n := bytes.Count(got, []byte("HTTP/1.1 ")); n > 1 {
		t.Errorf("shift %d: the connection carried %d answers: %.300q", shift, n, got)
	}
	if n := a.smuggled.Load(); n > 0 {
		t.Errorf("shift %d: %d hidden requests were carried out so far", shift, n)
	}
}

// drip sends a part of the body at once and the rest byte by byte.
func (a *attack) drip(t *testing.T, path string) {
	body := attackBody(0)
	conn := dialRaw(t, a.g.http)
	if _, err := fmt.Fprintf(conn, "PUT %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", path, len(body), body[:64<<10/len(hidden)*len(hidden)]); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for i := range 5 * len(hidden) {
			select {
			case <-stop:
				return
			case <-tick.C:
			}
			if _, err := conn.Write([]byte{hidden[i%len(hidden)]}); err != nil {
				return
			}
		}
		_ = conn.(*net.TCPConn).CloseWrite()
	})
	got, err := io.ReadAll(conn)
	if isTimeout(err) {
		t.Errorf("the connection hangs, after %.200q", got)
	}
	close(stop)
	wg.Wait()
	a.check(t, 0, got)
}

// honest sends bodies that are read to their end, on one connection.
func (a *attack) honest(t *testing.T) {
	conn := dialRaw(t, a.g.http)
	r := bufio.NewReader(conn)
	for name, frame := range framings {
		body := attackBody(0)
		head, framed := frame(body)
		if _, err := fmt.Fprintf(conn, "PUT /honest HTTP/1.1\r\nHost: x\r\n%s\r\n%s", head, framed); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		text, err := io.ReadAll(resp.Body)
		if err != nil || string(text) != fmt.Sprint(len(body)) {
			t.Errorf("%s: the upstream has read %s bytes of %d (%v)", name, text, len(body), err)
		}
	}
}
