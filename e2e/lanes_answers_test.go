package e2e_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

// badAnswers are what an upstream may answer, and what a client gets for it on either
// lane: a status and a body, "cut" for an answer that begins and is broken off, or more
// of these separated by a bar where time decides. Where they differ, the fast lane
// refuses what net/http's transport guesses at.
var badAnswers = []struct {
	name, answer string
	fast, full   string
}{
	{"good", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "200 ok", "200 ok"},
	{"the same length twice", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok", "200 ok", "200 ok"},
	{"surplus bytes", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokmore", "200 ok", "200 ok"},
	{"two answers", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", "200 ok", "200 ok"},
	{"204 with an answer behind it", "HTTP/1.1 204 No Content\r\nContent-Length: 40\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", "204 ", "204 "},
	{"surplus behind chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", "200 ok", "200 ok"},
	{"a trailer", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-A: b\r\n\r\n", "200 ok", "200 ok"},
	{"a large header", "HTTP/1.1 200 OK\r\nX-A: " + strings.Repeat("a", 200<<10) + "\r\nContent-Length: 2\r\n\r\nok", "200 ok", "200 ok"},

	// Refused by the fast lane only.
	{"both lengths", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", "502", "200 ok"},
	{"chunks of HTTP/1.0", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\nok", "502", "200 ok"},
	{"obs-fold", "HTTP/1.1 200 OK\r\nX-A: b\r\n c\r\nContent-Length: 2\r\n\r\nok", "502", "200 ok"},
	{"bare LF", "HTTP/1.1 200 OK\nContent-Length: 2\n\nok", "502", "200 ok"},
	{"a blank before a colon", "HTTP/1.1 200 OK\r\nX-A : b\r\nContent-Length: 2\r\n\r\nok", "502", "200 ok"},
	{"two blanks before the status", "HTTP/1.1  200 OK\r\nContent-Length: 2\r\n\r\nok", "502", "200 ok"},
	{"NUL in the reason", "HTTP/1.1 200 O\x00K\r\nContent-Length: 2\r\n\r\nok", "502", "200 ok"},
	{"HTTP/2.0", "HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok", "502", "200 ok"},
	{"HTTP/1.9", "HTTP/1.9 200 OK\r\nContent-Length: 2\r\n\r\nok", "502", "200 ok"},
	{"a length in the trailer", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nContent-Length: 9\r\n\r\n", "cut", "200 ok"},

	// Refused by both.
	{"differing lengths", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!", "502", "502"},
	{"a list of lengths", "HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok", "502", "502"},
	{"a signed length", "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok", "502", "502"},
	{"an empty length", "HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\nok", "502", "502"},
	{"another coding", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", "502", "502"},
	{"two codings", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", "502", "502"},
	{"bare CR in a value", "HTTP/1.1 200 OK\r\nX-A: b\rX-B: c\r\nContent-Length: 2\r\n\r\nok", "502", "502"},
	{"NUL in a value", "HTTP/1.1 200 OK\r\nX-A: b\x00c\r\nContent-Length: 2\r\n\r\nok", "502", "502"},
	{"NUL in a name", "HTTP/1.1 200 OK\r\nX\x00A: b\r\nContent-Length: 2\r\n\r\nok", "502", "502"},
	{"no colon", "HTTP/1.1 200 OK\r\nno colon\r\nContent-Length: 2\r\n\r\nok", "502", "502"},
	{"an empty line first", "\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "502", "502"},
	{"a header of 300 KB", "HTTP/1.1 200 OK\r\nX-A: " + strings.Repeat("a", 300<<10) + "\r\nContent-Length: 2\r\n\r\nok", "502", "502"},
	{"SSH", "SSH-2.0-OpenSSH_9.9\r\n", "502", "502"},
	{"TLS", "\x15\x03\x01\x00\x02\x02\x46", "502", "502"},
	{"101 unasked", "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", "502", "502"},
	{"nothing", "", "502", "502"},
	{"a part of a header", "HTTP/1.1 200 OK\r\nContent-", "502", "502"},
	{"an interim answer only", "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", "502", "502"},
	{"a trailer that is to have a length", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: Content-Length\r\n\r\n2\r\nok\r\n0\r\n\r\n", "502", "502"},

	// Broken off by both.
	{"a body too short", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", "cut", "cut"},
	{"a chunk too short", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nok", "cut", "cut"},
	{"a chunk too long", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nokmore\r\n0\r\n\r\n", "cut", "cut"},
	{"no last chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", "cut", "cut"},
	{"no end of the trailer", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-A: b\r\n", "cut", "cut"},
	{"a size that is none", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0x1\r\n", "cut", "cut"},
	{"a huge size", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\nfffffffffffffffff\r\n", "cut", "cut"},
	{"bare LF behind a size", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n2\nok\r\n0\r\n\r\n", "cut", "cut"},
}

// TestBadAnswers has upstreams answer badly on a connection that has been good, and be
// good again, on it if it is still used: whatever the answer was, the next one is the
// next request's.
func TestBadAnswers(t *testing.T) {
	t.Parallel()
	l := startLanes(t, settings{})
	for i, c := range badAnswers {
		path := fmt.Sprint("/bad/", i)
		ends := c.fast == "cut" || strings.HasPrefix(c.fast, "502")
		l.create(route{Path: path + "/*", Method: "*", TargetURL: "http://" + rawUpstream(t, func(conn net.Conn) {
			r := bufio.NewReader(conn)
			for {
				req, err := nextRequest(r)
				if err != nil {
					return
				}
				if !strings.HasSuffix(req.URL.Path, "/bad") {
					token := req.URL.Query().Get("token")
					fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(token), token)
					continue
				}
				say(c.answer)(conn)
				if ends && !strings.HasSuffix(c.answer, "evil") {
					return // what is incomplete would be waited for
				}
			}
		})})
		l.each(func(name string, g *gateway) {
			want := c.fast
			if name == "full" {
				want = c.full
			}
			t.Run(c.name+", "+name, func(t *testing.T) {
				t.Parallel()
				for round, method := range []string{"GET", "POST", "GET", "HEAD"} {
					token := fmt.Sprint(name, " ", i, " ", round)
					good := path + "/good?token=" + strings.ReplaceAll(token, " ", "+")
					g.wantBody(good, token)
					var change []func(*http.Request)
					if method == "POST" {
						change = append(change, payload("x"))
					}
					got, err := g.trySend(method, path+"/bad", change...)
					result := fmt.Sprintf("%d %s", got.status, got.body)
					if err != nil {
						result = "cut"
					}
					if got.status == http.StatusBadGateway {
						result = "502"
					}
					if method != "HEAD" && result != want {
						t.Errorf("%s is answered %.200q (%v), want %s", method, result, err, want)
					}
					if name == "full" && method == "HEAD" {
						// A body is surplus then, and http.Transport may take the connection
						// once more before it has seen that. No answer but the right one may
						// come of it.
						if got := g.send(http.MethodGet, good); got.status == http.StatusBadGateway {
							t.Logf("a request came before the surplus was seen: %s", got)
						} else if string(got.body) != token {
							t.Errorf("GET %s is answered %s, want %s", good, got, token)
						}
					}
					g.wantBody(good, token)
				}
			})
		})
	}
	t.Cleanup(func() {
		l.wantIdle()
		if n := l.full.fastTries(); n != 0 {
			t.Errorf("without a fast lane, %d tries were made on it", n)
		}
		if n, least := l.fast.fastTries(), len(badAnswers)*12; n < least {
			t.Errorf("the fast lane has had %d tries of at least %d", n, least)
		}
	})
}

// TestDeadConnections has upstreams close, or spoil, each connection while it is idle.
func TestDeadConnections(t *testing.T) {
	t.Parallel()
	l := startLanes(t, settings{})
	for name, spoil := range map[string]func(net.Conn){
		"closed":    func(conn net.Conn) { conn.Close() },
		"reset":     reset,
		"an answer": say("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"),
		"a timeout": func(conn net.Conn) {
			say("HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")(conn)
			conn.Close()
		},
	} {
		conns := make(chan net.Conn, 64)
		path := "/dead/" + strings.ReplaceAll(name, " ", "-")
		l.create(route{Path: path, Method: "*", TargetURL: "http://" + rawUpstream(t, func(conn net.Conn) {
			r := bufio.NewReader(conn)
			for {
				req, err := http.ReadRequest(r)
				if err != nil {
					return
				}
				body, err := io.ReadAll(req.Body)
				if err != nil {
					return
				}
				conns <- conn
				fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body)+3, "ok "+string(body))
			}
		})})
		l.each(func(lane string, g *gateway) {
			for i := range 20 {
				method := []string{"GET", "POST"}[i%2]
				body := fmt.Sprint(lane, i)
				got, err := g.trySend(method, path, payload(body))
				if err != nil || got.status != http.StatusOK || string(got.body) != "ok "+body {
					t.Errorf("%s, %s: %s %d is answered %s (%v)", name, lane, method, i, got, err)
				}
				spoil(await(t, conns, "the upstream has answered"))
				if lane == "full" {
					// http.Transport learns of it by a goroutine of its own. Until that has run,
					// a request may take the connection.
					g.call(http.MethodGet, "/api/status", nil)
					g.call(http.MethodGet, "/api/status", nil)
				}
			}
		})
	}
	l.wantIdle()
}
