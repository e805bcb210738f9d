package e2e_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// upstreamFailures are upstreams that misbehave once they have read a request's
// header.
var upstreamFailures = []struct {
	name   string
	serve  func(net.Conn)
	status int // of the answer; 0 for one that begins well and is cut
}{
	{"closes", func(net.Conn) {}, 502},
	{"resets", reset, 502},
	{"says nothing", silence, 504},
	{"garbage", say("\x00\x01\x02 no HTTP at all\r\n\r\n"), 502},
	{"another protocol", say("SSH-2.0-OpenSSH_9.9\r\n"), 502},
	{"a TLS alert", say("\x15\x03\x01\x00\x02\x02\x46"), 502},
	{"an HTTP/2 frame", say("\x00\x00\x00\x04\x00\x00\x00\x00\x00"), 502},
	{"half a header", say("HTTP/1.1 200 OK\r\nContent-Le"), 502},
	{"a malformed field", say("HTTP/1.1 200 OK\r\nno colon\r\n\r\n"), 502},
	{"a malformed status", say("HTTP/1.1 twohundred OK\r\n\r\n"), 502},
	{"two lengths", say("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"), 502},
	{"a negative length", say("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"), 502},
	{"an unknown coding", say("HTTP/1.1 200 OK\r\nTransfer-Encoding: magic\r\n\r\n"), 502},
	{"an oversized header", say("HTTP/1.1 200 OK\r\nX-A: " + strings.Repeat("a", 1<<20) + "\r\n\r\n"), 502},
	{"an endless header", endless("HTTP/1.1 200 OK\r\n", "X-A: b\r\n"), 502},
	{"an unasked upgrade", say("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"), 502},
	{"a header and silence", func(conn net.Conn) {
		say("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")(conn)
		silence(conn)
	}, 0},
	{"a body that drips", func(conn net.Conn) {
		say("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")(conn)
		for range 1000 {
			if _, err := conn.Write([]byte{'.'}); err != nil {
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
	}, 0},
	{"half a body", say("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"), 0},
	{"half a body and a reset", func(conn net.Conn) {
		say("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")(conn)
		reset(conn)
	}, 0},
	{"half a chunk", say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\nhalf"), 0},
	{"a malformed chunk", say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nzz\r\n"), 0},
}

func say(text string) func(net.Conn) {
	return func(conn net.Conn) { _, _ = io.WriteString(conn, text) }
}

// endless says the begin and then the rest until the other side hangs up.
func endless(begin, rest string) func(net.Conn) {
	rest = strings.Repeat(rest, 1000)
	return func(conn net.Conn) {
		for text := begin; ; text = rest {
			if _, err := io.WriteString(conn, text); err != nil {
				return
			}
		}
	}
}

// silence waits until the other side hangs up.
func silence(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) }

func TestUpstreamFailures(t *testing.T) {
	t.Parallel()
	g := startGateway(t, settings{})
	g.create(route{Path: "/warm", TargetURL: textUpstream(t, "warm")})
	g.wantBody("/warm", "warm")
	before := g.goroutines()

	second := 1
	var made []route
	add := func(r route) string {
		r.Path, r.Timeout, r.Method = fmt.Sprintf("/fail/%d", len(made)), &second, "GET,POST"
		made = append(made, g.create(r))
		return r.Path
	}
	t.Run("group", func(t *testing.T) {
		for _, f := range upstreamFailures {
			address := rawUpstream(t, func(conn net.Conn) {
				if _, err := readHead(bufio.NewReader(conn)); err == nil {
					f.serve(conn)
				}
			})
			path := add(route{TargetURL: "http://" + address})
			t.Run(f.name, func(t *testing.T) {
				t.Parallel()
				for _, method := range []string{http.MethodGet, http.MethodPost} {
					a, err := g.trySend(method, path)
					switch {
					case f.status == 0 && err == nil:
						t.Errorf("%s: the answer is whole: %s", method, a)
					case f.status != 0 && err != nil:
						t.Errorf("%s: %v", method, err)
					case f.status != 0:
						wantProblem(t, a, f.status, address)
					}
				}
			})
		}

		flood := rawUpstream(t, endless("", "HTTP/1.1 103 Early Hints\r\n\r\n"))
		path := add(route{TargetURL: "http://" + flood})
		t.Run("endless interim answers", func(t *testing.T) {
			t.Parallel()
			// They are passed on until the timeout, unless the client or the
			// connection has had enough before.
			if a, err := g.trySend(http.MethodGet, path); err == nil && a.status != http.StatusBadGateway {
				wantProblem(t, a, http.StatusGatewayTimeout)
			}
		})

		secure := httptest.NewTLSServer(http.NotFoundHandler())
		t.Cleanup(secure.Close)
		plain := newUpstream(t, http.NotFound)
		silent := rawUpstream(t, silence)
		for name, r := range map[string]route{
			"refused":                   {TargetURL: fmt.Sprintf("http://127.0.0.1:%d", freePort(t))},
			"no such name":              {TargetURL: "http://nothing.invalid"},
			"untrusted certificate":     {TargetURL: secure.URL},
			"no TLS":                    {TargetURL: strings.Replace(plain.URL, "http", "https", 1)},
			"no HTTP/2":                 {TargetURL: strings.Replace(plain.URL, "http", "h2c", 1)},
			"TLS instead of HTTP":       {TargetURL: strings.Replace(secure.URL, "https", "http", 1)},
			"silence instead of TLS":    {TargetURL: "https://" + silent},
			"silence instead of h2c":    {TargetURL: "h2c://" + silent},
			"certificate of a stranger": {TargetURL: secure.URL, Upstream: &upstreamSettings{TLS: &tlsSettings{CA: certificateOf(t, secure), ServerName: "other.test"}}},
		} {
			path := add(r)
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				a := g.send(http.MethodGet, path)
				switch {
				case strings.HasPrefix(name, "silence"):
					wantProblem(t, a, http.StatusGatewayTimeout, "invalid", "x509")
				case name == "TLS instead of HTTP":
					// Go's server answers a 400 that the gateway passes on.
					if a.status != http.StatusBadRequest && a.status != http.StatusBadGateway {
						t.Errorf("the answer is %s", a)
					}
				case name == "no such name" && a.status == http.StatusGatewayTimeout:
					wantProblem(t, a, http.StatusGatewayTimeout, "invalid") // a slow resolver
				default:
					wantProblem(t, a, http.StatusBadGateway, "invalid", "x509", "lookup")
				}
			})
		}
	})

	// Nothing is left of them, and nothing hangs.
	for _, r := range made {
		g.remove(r.ID)
	}
	g.wantBody("/warm", "warm")
	eventually(t, startTimeout, "all goroutines have ended", func() error {
		g.client.CloseIdleConnections()
		if now := g.goroutines(); now > before+5 {
			return fmt.Errorf("there are %d, and were %d", now, before)
		}
		return nil
	})
	var status struct {
		Requests struct {
			InFlight int `json:"in_flight"`
		} `json:"requests"`
	}
	g.call(http.MethodGet, "/api/status", nil).decode(t, &status)
	if status.Requests.InFlight != 0 {
		t.Errorf("%d requests are in flight", status.Requests.InFlight)
	}
}

var goroutineTotal = regexp.MustCompile(`^goroutine profile: total (\d+)`)

// goroutines returns how many goroutines the gateway has.
func (g *gateway) goroutines() int {
	g.t.Helper()
	a := g.call(http.MethodGet, "/debug/pprof/goroutine?debug=1", nil)
	m := goroutineTotal.FindSubmatch(a.body)
	if m == nil {
		g.t.Fatalf("no profile: %.200s", a)
	}
	n, err := strconv.Atoi(string(m[1]))
	if err != nil {
		g.t.Fatal(err)
	}
	return n
}

// TestClientsThatLeave breaks requests off at every stage.
func TestClientsThatLeave(t *testing.T) {
	t.Parallel()
	g := startGateway(t, settings{})
	entered, left := make(chan struct{}, 64), make(chan struct{}, 64)
	upstream := newUpstream(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/leave/stream" {
			fmt.Fprint(w, "begun")
			w.(http.Flusher).Flush()
		}
		entered <- struct{}{}
		<-r.Context().Done()
		left <- struct{}{}
	})
	g.create(route{Path: "/leave/*", Method: "*", TargetURL: upstream.URL})
	before := g.goroutines()
	for _, raw := range []string{get("/leave/wait"), get("/leave/stream")} {
		for range 20 {
			conn := dialRaw(t, g.http)
			if _, err := io.WriteString(conn, raw); err != nil {
				t.Fatal(err)
			}
			await(t, entered, "the request has come to the upstream")
			conn.Close()
			await(t, left, "the upstream is told that the client has left")
		}
	}
	eventually(t, startTimeout, "all goroutines have ended", func() error {
		g.client.CloseIdleConnections()
		if now := g.goroutines(); now > before+8 {
			return fmt.Errorf("there are %d, and were %d", now, before)
		}
		return nil
	})
	var status struct {
		Requests map[string]json.Number `json:"requests"`
	}
	g.call(http.MethodGet, "/api/status", nil).decode(t, &status)
	if n := status.Requests["failed"]; n.String() != "0" {
		t.Errorf("%s requests failed, though the clients left: %v", n, status.Requests)
	}
}

// await waits for a signal.
func await[T any](t testing.TB, signal <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-signal:
		return v
	case <-time.After(startTimeout):
		t.Fatalf("waiting until %s", what)
		panic("unreachable")
	}
}
