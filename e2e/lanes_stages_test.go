package e2e_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// drip says the text again and again, a byte at a time, until the other side hangs up.
func drip(begin, text string) func(net.Conn) {
	return func(conn net.Conn) {
		say(begin)(conn)
		for i := 0; ; i++ {
			if _, err := io.WriteString(conn, text[i%len(text):i%len(text)+1]); err != nil {
				return
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
}

// thenReset resets the connection behind the text.
func thenReset(text string) func(net.Conn) {
	return func(conn net.Conn) {
		say(text)(conn)
		reset(conn)
	}
}

// TestAnswersByStages has targets go on without end, drip, and reset their connection, at
// every stage of an answer. Either lane ends it, in the same way, and has nothing left.
func TestAnswersByStages(t *testing.T) {
	t.Parallel()
	const (
		ok      = "HTTP/1.1 200 OK\r\n"
		chunked = ok + "Transfer-Encoding: chunked\r\n\r\n"
	)
	timeout := 1
	l := startLanes(t, settings{})
	for i, c := range []struct {
		name  string
		serve func(net.Conn)
		want  string // statuses, or "cut" for an answer that is broken off; separated by a bar where time decides
	}{
		{"endless interim answers", endless("", "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"), "504|cut"}, // by net/http's client
		{"an endless header", endless(ok, "X-A: b\r\n"), "502"},
		{"an endless line", endless(ok+"X-A: ", "aaaaaaaa"), "502"},
		{"an endless status line", endless("HTTP/1.1 200 ", "aaaaaaaa"), "502"},
		{"endless extensions of a chunk", endless(chunked+"2;", "aaaaaaaa"), "cut"},
		{"an endless trailer", endless(chunked+"2\r\nok\r\n0\r\n", "X-A: b\r\n"), "cut"},
		{"endless zeros of a size", endless(chunked, "00000000"), "cut"},
		{"a status line that drips", drip("", "HTTP/1.1 200 a long text that has no end "), "504"},
		{"a header that drips", drip(ok, "X-A: b\r\n"), "504"},
		{"interim answers that drip", drip("", "HTTP/1.1 103 Early Hints\r\n\r\n"), "504"},
		{"a body that drips", drip(ok+"Content-Length: 1000000\r\n\r\n", "body"), "cut"},
		{"chunks that drip", drip(chunked, "1\r\na\r\n"), "cut"},
		{"a size that drips", drip(chunked, "0"), "cut"},
		{"a trailer that drips", drip(chunked+"2\r\nok\r\n0\r\n", "X-A: b\r\n"), "cut"},
		{"a reset before the answer", reset, "502"},
		{"a reset in the status line", thenReset("HTTP/1.1 2"), "502"},
		{"a reset in the header", thenReset(ok + "Content-"), "502"},
		{"a reset behind an interim answer", thenReset("HTTP/1.1 103 Early Hints\r\n\r\n"), "502"},
		// What was sent before a reset may be lost with it.
		{"a reset before the body", thenReset(ok + "Content-Length: 9\r\n\r\n"), "cut|502"},
		{"a reset in the body", thenReset(ok + "Content-Length: 9\r\n\r\nok"), "cut|502"},
		{"a reset in a chunk", thenReset(chunked + "9\r\nok"), "cut|502"},
		{"a reset before the last chunk", thenReset(chunked + "2\r\nok\r\n"), "cut|502"},
		{"a reset in the trailer", thenReset(chunked + "2\r\nok\r\n0\r\nX-A: b\r\n"), "cut|502"},
		{"a reset where only the end says that it is one", thenReset(ok + "\r\nok"), "cut|502"},
	} {
		ended := make(chan struct{}, 8)
		r := l.create(route{Path: fmt.Sprint("/stage/", i), Method: "*", Timeout: &timeout, TargetURL: "http://" + rawUpstream(t, func(conn net.Conn) {
			defer func() { ended <- struct{}{} }()
			if _, err := nextRequest(bufio.NewReader(conn)); err == nil {
				c.serve(conn)
			}
		})})
		l.each(func(lane string, g *gateway) {
			t.Run(c.name+", "+lane, func(t *testing.T) {
				t.Parallel()
				for _, method := range []string{"GET", "POST"} {
					var change []func(*http.Request)
					if method == "POST" {
						change = append(change, payload("x"))
					}
					got, err := g.trySend(method, r.Path, change...)
					result := fmt.Sprint(got.status)
					if err != nil {
						result = "cut"
					}
					if !strings.Contains("|"+c.want+"|", "|"+result+"|") {
						t.Errorf("%s is answered %s (%v), want %s", method, result, err, c.want)
					}
					await(t, ended, "the gateway has hung up")
				}
			})
		})
	}
	t.Cleanup(l.wantIdle)
}

// TestManyDeadConnections has all connections of a pool closed at once, and as many
// requests that must not be sent twice follow.
func TestManyDeadConnections(t *testing.T) {
	t.Parallel()
	g := startGateway(t, settings{})
	const parallel = 40
	arrived, release := make(chan net.Conn, parallel), make(chan struct{})
	g.create(route{Path: "/many", Method: "*", TargetURL: "http://" + rawUpstream(t, func(conn net.Conn) {
		r := bufio.NewReader(conn)
		for {
			if _, err := nextRequest(r); err != nil {
				return
			}
			arrived <- conn
			<-release
			say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")(conn)
		}
	})})
	for round := range 5 {
		var clients sync.WaitGroup
		for range parallel {
			clients.Go(func() {
				if got, err := g.trySend(http.MethodPost, "/many", payload("x")); err != nil || got.status != http.StatusOK {
					t.Errorf("round %d: %s (%v)", round, got, err)
				}
			})
		}
		var conns []net.Conn
		for range parallel {
			conns = append(conns, await(t, arrived, "a request arrives"))
		}
		for range parallel {
			release <- struct{}{}
		}
		clients.Wait()
		for i, conn := range conns {
			if i%2 == 0 {
				conn.Close()
			} else {
				reset(conn)
			}
		}
	}
	if n := g.fastTries(); n != 5*parallel {
		t.Errorf("%d tries on the fast lane", n)
	}
}
