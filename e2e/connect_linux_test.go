package e2e_test

import (
	"net"
	"net/http"
	"strconv"
	"syscall"
	"testing"
)

// deafAddress returns an address at which connecting takes for ever: its queue is
// full, and the system ignores who else comes.
func deafAddress(t *testing.T) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(name.(*syscall.SockaddrInet4).Port))
	// A queue of length 0 holds one.
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return address
}

// TestConnectTimeout gives up on a target that does not take connections, and goes
// on to the next.
func TestConnectTimeout(t *testing.T) {
	t.Parallel()
	g := startGateway(t, settings{})
	b := newBackend(t, "b")
	deaf, never := "http://"+deafAddress(t), 0
	u := &upstreamSettings{Timeouts: map[string]any{"connect": 0.2}}
	g.create(route{Path: "/alone", TargetURL: deaf, Timeout: &never, Upstream: u})
	u = &upstreamSettings{Targets: []upstreamTarget{{URL: deaf}, {URL: b.url()}}, Policy: "first", Timeouts: u.Timeouts}
	g.create(route{Path: "/both", Method: "POST", TargetURL: deaf, Timeout: &never, Upstream: u})
	wantProblem(t, g.send(http.MethodGet, "/alone"), http.StatusBadGateway)
	if got := g.send(http.MethodPost, "/both", payload("x")); string(got.body) != "b" {
		t.Errorf("the next target's answer is %s", got)
	}
}
