package e2e_test

import (
	"net"
	"testing"
	"time"
)

// TestOutOfDescriptors lets clients take all files that the process may open. It serves
// again when they are gone.
func TestOutOfDescriptors(t *testing.T) {
	t.Parallel()
	g := newGateway(t, settings{descriptors: 256})
	g.start()
	g.waitReady()
	g.create(route{Path: "/up", TargetURL: textUpstream(t, "up")})
	g.wantBody("/up", "up")
	g.client.CloseIdleConnections()
	var idle []net.Conn
	for range 400 {
		conn, err := net.DialTimeout("tcp", g.http, callTimeout)
		if err != nil {
			break // the queue of those that nobody has accepted is full
		}
		idle = append(idle, conn)
	}
	defer func() {
		for _, conn := range idle {
			conn.Close()
		}
	}()
	if len(idle) < 256 {
		t.Fatalf("only %d connections were made", len(idle))
	}
	// Nobody answers on the last one: it waits to be accepted.
	last := idle[len(idle)-1]
	if _, err := last.Write([]byte("GET /up HTTP/1.1\r\nHost: x\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	if err := last.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	if n, err := last.Read(make([]byte, 1)); !isTimeout(err) {
		t.Errorf("%d bytes were answered, %v: there are descriptors left", n, err)
	}
	for _, conn := range idle {
		conn.Close()
	}
	g.waitBody("/up", "up")
	g.create(route{Path: "/after", TargetURL: textUpstream(t, "after")})
	g.wantBody("/after", "after")
}
