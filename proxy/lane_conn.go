package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"time"
)

// laneConn is a connection of the fast lane to a target. It has at most one exchange
// at a time.
type laneConn struct {
	net.Conn
	probe  *probedConn // below TLS, if there is any
	reused bool        // an exchange has succeeded on it
	since  time.Time   // when it became idle

	// interrupt ends all waiting for the target. It is made once, for context.AfterFunc.
	interrupt func()

	unsent  []byte     // a request that the next Read sends
	sending chan error // gets what comes of sendAside; nil unless that was called
	failure error      // of sending, if sendError or sent has seen it

	mu    sync.Mutex    // guards deadlines
	cut   bool          // interrupted, or failed: it has no other deadline any more
	bound time.Duration // of reads, 0 for none
	later time.Duration // the bound that reads have once the request is sent
}

// longAgo is a deadline that has passed.
var longAgo = time.Unix(1, 0)

func newLaneConn(conn net.Conn) *laneConn {
	probe := &probedConn{Conn: conn, raw: rawOf(conn)}
	c := &laneConn{Conn: probe, probe: probe}
	c.interrupt = func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.cut = true
		_ = c.SetDeadline(longAgo) // fails on a closed connection only
	}
	return c
}

// secure begins TLS.
func (c *laneConn) secure(ctx context.Context, config *tls.Config, timeout time.Duration) (protocol string, err error) {
	client := tls.Client(c.probe, config)
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if err := client.HandshakeContext(ctx); err != nil {
		return "", err
	}
	c.Conn = client
	return client.ConnectionState().NegotiatedProtocol, nil
}

// wait bounds how long reads may take from now on; 0 lifts the bound.
func (c *laneConn) wait(d time.Duration) {
	if c.sending == nil && d == 0 && c.bound == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.setBound(d)
}

// setBound must be called with mu held.
func (c *laneConn) setBound(d time.Duration) {
	c.later = 0
	if c.cut {
		return
	}
	var until time.Time
	if d > 0 {
		until = time.Now().Add(d)
	}
	c.bound = d
	_ = c.SetReadDeadline(until)
}

// errGone says that an idle connection can't be used, and that nothing was sent on it:
// it was closed, or something has come that nobody has asked for.
var errGone = errors.New("the connection is closed, or has an answer to no request")

// send sends a request, on a connection that was idle only if it is alive, and bounds how
// long its answer may take to begin; 0 is no bound. Without TLS it is left to the next
// Read, which does both and waits for the answer in one. If not all can be sent, what the
// target has said before can still be read, and sendError says why.
func (c *laneConn) send(request []byte, patience time.Duration) error {
	switch {
	case c.reused && c.Conn == c.probe && c.probe.raw.canExchange():
		c.unsent = request
		c.wait(patience)
		return nil
	case c.reused && !c.fresh() && !c.alive():
		return errGone
	case len(request) > sentAtOnce:
		c.sendAside(request, patience)
		return nil
	}
	_, c.failure = c.Write(request)
	if c.failure != nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.giveUp()
		return nil
	}
	c.wait(patience)
	return nil
}

// Read implements net.Conn.
func (c *laneConn) Read(p []byte) (int, error) {
	if c.unsent == nil {
		return c.Conn.Read(p)
	}
	request := c.unsent
	c.unsent = nil
	n, sent, err := c.probe.raw.exchange(request, p)
	if sent == len(request) || err != nil {
		return n, err
	}
	c.sendAside(request[sent:], c.bound)
	return c.Conn.Read(p)
}

// fresh says that a connection was used so recently that it is not worth its while to
// look whether it is alive.
func (c *laneConn) fresh() bool { return freshFor > 0 && time.Since(c.since) < freshFor }

// alive says whether an idle connection can be used: whether it is open, and nothing
// has come that nobody has asked for.
func (c *laneConn) alive() bool {
	c.probe.now = true
	var b [1]byte
	n, err := c.Conn.Read(b[:])
	c.probe.now = false
	return n == 0 && errors.Is(err, errNothingYet)
}

// probedConn is a connection that can be read without waiting.
type probedConn struct {
	net.Conn
	raw rawReader
	now bool // Read does not wait
}

// Read implements net.Conn.
func (c *probedConn) Read(p []byte) (int, error) {
	if c.now {
		return c.raw.readNow(p)
	}
	return c.Conn.Read(p)
}

// errNothingYet says that nothing has come. For crypto/tls it is an error after which
// reading can go on.
var errNothingYet error = nothingYet{}

type nothingYet struct{}

func (nothingYet) Error() string   { return "nothing has come yet" }
func (nothingYet) Timeout() bool   { return true }
func (nothingYet) Temporary() bool { return true }

// laneConns are the idle connections of one transport's fast lane. They are bounded as
// http.Transport's are.
type laneConns struct {
	mu     sync.Mutex
	idle   map[string][]*laneConn // by address, the one used last at the end
	closed bool
	timer  *time.Timer // runs sweep while there are any
}

// sweepInterval is how often idle connections are looked at.
const sweepInterval = 10 * time.Second

// get returns an idle connection, which may have been closed meanwhile, nil if there is
// none.
func (p *laneConns) get(address string) *laneConn {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := p.idle[address]
	if len(list) == 0 {
		return nil
	}
	c := list[len(list)-1]
	list[len(list)-1] = nil
	p.idle[address] = list[:len(list)-1]
	return c
}

// has says whether there is an idle connection.
func (p *laneConns) has(address string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.idle[address]) > 0
}

// put keeps a connection for the next exchange.
func (p *laneConns) put(address string, c *laneConn) {
	c.reused, c.since = true, time.Now()
	p.mu.Lock()
	list := p.idle[address]
	if p.closed || len(list) >= maxIdleConnsPerHost {
		p.mu.Unlock()
		_ = c.Close()
		return
	}
	if p.idle == nil {
		p.idle = make(map[string][]*laneConn)
	}
	p.idle[address] = append(list, c)
	if p.timer == nil {
		p.timer = time.AfterFunc(sweepInterval, p.sweep)
	}
	p.mu.Unlock()
}

// sweep closes connections that were idle for long, or whose target has closed them.
func (p *laneConns) sweep() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	now, left := time.Now(), 0
	for address, list := range p.idle {
		kept := list[:0]
		for _, c := range list {
			// Others wait meanwhile, so that nothing is looked at where that takes long.
			if now.Sub(c.since) < idleConnTimeout && (freshFor > 0 || c.alive()) {
				kept = append(kept, c)
			} else {
				_ = c.Close()
			}
		}
		clear(list[len(kept):])
		if p.idle[address] = kept; len(kept) == 0 {
			delete(p.idle, address)
		}
		left += len(kept)
	}
	if p.timer = nil; left > 0 {
		p.timer = time.AfterFunc(sweepInterval, p.sweep)
	}
}

// close closes the idle connections. Those in use are closed when they come back.
func (p *laneConns) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	if p.timer != nil {
		p.timer.Stop()
	}
	for _, list := range p.idle {
		for _, c := range list {
			_ = c.Close()
		}
	}
	p.idle = nil
}
