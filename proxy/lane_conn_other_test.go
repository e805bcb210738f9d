//go:build !unix

package proxy

import (
	"errors"
	"net"
	"testing"
	"time"
)

// watchedConn counts how often it is read.
type watchedConn struct {
	net.Conn
	reads int
}

func (c *watchedConn) Read([]byte) (int, error)      { c.reads++; return 0, net.ErrClosed }
func (*watchedConn) Write(p []byte) (int, error)     { return len(p), nil }
func (*watchedConn) SetReadDeadline(time.Time) error { return nil }
func (*watchedConn) SetDeadline(time.Time) error     { return nil }
func (*watchedConn) Close() error                    { return nil }

// TestSeldomLookedAt has connections looked at, which takes long here, neither while
// others wait nor when they were used just now.
func TestSeldomLookedAt(t *testing.T) {
	t.Parallel()
	var (
		watched watchedConn
		conns   laneConns
	)
	defer conns.close()
	c := newLaneConn(&watched)
	conns.put("x", c)
	conns.sweep()
	if conns.get("x") != c || watched.reads > 0 {
		t.Errorf("the sweep has looked %d times", watched.reads)
	}
	if err := c.send([]byte("GET"), 0); err != nil || watched.reads > 0 {
		t.Errorf("sending has looked %d times: %v", watched.reads, err)
	}
	c.since = time.Now().Add(-2 * freshFor)
	if err := c.send([]byte("GET"), 0); !errors.Is(err, errGone) || watched.reads != 1 {
		t.Errorf("after a while, sending has looked %d times: %v", watched.reads, err)
	}
	conns.put("x", c)
	c.since = time.Now().Add(-2 * idleConnTimeout)
	if conns.sweep(); conns.has("x") {
		t.Error("it is kept for ever")
	}
}
