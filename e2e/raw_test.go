package e2e_test

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// rawTimeout bounds an exchange on a raw connection. A test in which it passes
// has found a hang.
const rawTimeout = 30 * time.Second

// dialRaw opens a connection that ends by itself after rawTimeout.
func dialRaw(t testing.TB, address string) net.Conn {
	t.Helper()
	conn, err := net.DialTimeout("tcp", address, rawTimeout)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(rawTimeout)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// rawUpstream accepts connections and gives each to serve, which need not close
// it. It returns the address, as host:port.
func rawUpstream(t testing.TB, serve func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_ = conn.SetDeadline(time.Now().Add(2 * rawTimeout))
			go func() {
				defer conn.Close()
				serve(conn)
			}()
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
	})
	return l.Addr().String()
}

// nextRequest reads a request with its body, which is thrown away.
func nextRequest(r *bufio.Reader) (*http.Request, error) {
	req, err := http.ReadRequest(r)
	if err != nil {
		return nil, err
	}
	_, err = io.Copy(io.Discard, req.Body)
	return req, err
}

// readHead reads a request's or an answer's header, up to the empty line.
func readHead(r *bufio.Reader) (string, error) {
	var b strings.Builder
	for {
		line, err := r.ReadString('\n')
		b.WriteString(line)
		if err != nil {
			return b.String(), err
		}
		if strings.TrimRight(line, "\r\n") == "" {
			return b.String(), nil
		}
	}
}

// isTimeout says whether an I/O error came from a deadline, and not from a
// connection that was closed.
func isTimeout(err error) bool {
	var netErr net.Error
	return errors.As(err, &netErr) && netErr.Timeout()
}

// reset closes a connection so that the other side reads an error, not an end.
func reset(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	conn.Close()
}

// hold keeps a connection open, without reading, until the other side closes it
// or the deadline passes.
func hold(conn net.Conn, released <-chan struct{}) {
	select {
	case <-released:
	case <-time.After(rawTimeout):
	}
	_, _ = io.Copy(io.Discard, conn)
}
