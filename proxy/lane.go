package proxy

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/isekai-gateway/isekai/proxy/http1"
)

// lane is the fast lane of a transport: HTTP/1.1 exchanges that the request's own
// goroutine does, over connections of its own. What it does not do, http.Transport
// does: it takes no request that is not simple (see laneRequest), and no target that
// speaks HTTP/2.
type lane struct {
	dial      dialFunc
	tls       *tls.Config // nil without TLS
	negotiate bool        // whether the target chooses between HTTP/1.1 and HTTP/2
	header    time.Duration
	conns     laneConns

	mu     sync.Mutex
	spoken map[string]time.Time // targets that have chosen HTTP/2, or are being asked: until when that holds
}

// newLane returns the fast lane beside a transport, nil if the protocol is HTTP/2.
func newLane(t *http.Transport, conn *connection, dial dialFunc) *lane {
	if conn.Protocol != protocolAuto && conn.Protocol != protocolHTTP1 {
		return nil
	}
	l := &lane{dial: dial, header: conn.Timeouts.ResponseHeader.Duration(0)}
	if conn.TLS {
		l.tls = t.TLSClientConfig.Clone()
		l.tls.NextProtos = nil
		if l.negotiate = conn.Protocol == protocolAuto; l.negotiate {
			l.tls.NextProtos = []string{"h2", "http/1.1"}
		}
	}
	return l
}

// needsFullLane says whether a policy with these options chooses by what only
// reverse_proxy has: a field of its own making, or its count of requests.
func needsFullLane(options json.RawMessage) bool {
	var o struct {
		Policy   string          `json:"policy"`
		Field    string          `json:"field"`
		Fallback json.RawMessage `json:"fallback"`
	}
	if len(options) == 0 || json.Unmarshal(options, &o) != nil {
		return false
	}
	switch http.CanonicalHeaderKey(o.Field) {
	case "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "Via", "Early-Data":
		return true
	}
	return o.Policy == policyLeastConn || o.Policy == policyRandomChoose || needsFullLane(o.Fallback)
}

// speaksFor is how long a target's choice of HTTP/2 is believed.
const speaksFor = 5 * time.Minute

// takes says whether the lane is for a target. Of several requests to one that was not
// asked yet, the first one that may asks, and the others take the full lane meanwhile.
func (l *lane) takes(address string, mayAsk bool) bool {
	if !l.negotiate {
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	until, known := l.spoken[address]
	switch {
	case known && until.IsZero():
		return true // HTTP/1.1
	case !mayAsk || known && time.Now().Before(until):
		return false
	case l.conns.has(address):
		// Nobody would be asked: the connection that is taken has its answer.
		l.note(address, time.Time{})
		return true
	}
	l.note(address, time.Now().Add(tlsHandshakeTimeout))
	return true
}

// note keeps what a target speaks. It must be called with mu held.
func (l *lane) note(address string, until time.Time) {
	if l.spoken == nil {
		l.spoken = make(map[string]time.Time)
	}
	l.spoken[address] = until
}

func (l *lane) learn(address string, until time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.note(address, until)
}

// forget makes the next request ask a target that was being asked again. One that speaks
// HTTP/1.1 does so also if it could not be connected to just now.
func (l *lane) forget(address string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.spoken[address].IsZero() {
		delete(l.spoken, address)
	}
}

// heard learns from an answer on the full lane what a target speaks that was not asked.
func (l *lane) heard(r *http.Request, resp *http.Response) {
	if !l.negotiate || r.Header.Get("Upgrade") != "" { // for which nothing but HTTP/1.1 is offered
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if until, known := l.spoken[r.URL.Host]; known && (until.IsZero() || now.Before(until)) {
		return
	}
	if resp.ProtoMajor == 1 {
		l.note(r.URL.Host, time.Time{})
	} else {
		l.note(r.URL.Host, now.Add(speaksFor))
	}
}

// errSpeaksHTTP2 says that a target has chosen HTTP/2: the full lane has to serve it.
var errSpeaksHTTP2 = errors.New("the target speaks HTTP/2")

// connect makes a connection to a target.
func (l *lane) connect(ctx context.Context, address string) (*laneConn, error) {
	conn, err := l.dial(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	c := newLaneConn(conn)
	if l.tls == nil {
		return c, nil
	}
	config := l.tls
	if config.ServerName == "" {
		config = config.Clone()
		config.ServerName, _, _ = net.SplitHostPort(address) // a target's always has both
	}
	protocol, err := c.secure(ctx, config, tlsHandshakeTimeout)
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	if l.negotiate {
		if protocol == "h2" {
			l.learn(address, time.Now().Add(speaksFor))
			_ = c.Close()
			return nil, errSpeaksHTTP2
		}
		l.learn(address, time.Time{})
	}
	return c, nil
}

// laneExchange is one request and its answer on the fast lane. It is used again by
// other requests, so nothing may hold it, or its buffers, beyond send or drop.
type laneExchange struct {
	request laneRequest
	reader  http1.Reader
	head    http1.Head
	body    http1.Body

	lane    *lane
	conn    *laneConn
	address string
	stop    func() bool // of the watch over the request's context
	idle    time.Duration
	untyped bool // nothing of the body is written yet, and nobody has said its type
}

// maxKeptFields is for how many fields of an answer there is room in one that is kept.
const maxKeptFields = 128

var laneExchanges = sync.Pool{New: func() any { return new(laneExchange) }}

// begin sends the request to a target and reads the head of its answer.
func (x *laneExchange) begin(w http.ResponseWriter, r *http.Request, l *lane, address string) error {
	ctx := r.Context()
	x.lane, x.address = l, address
	x.conn = l.conns.get(address)
	sent := false // on a connection that has died since
	for {
		if x.conn == nil {
			var err error
			if x.conn, err = l.connect(ctx, address); err != nil {
				if l.negotiate && !errors.Is(err, errSpeaksHTTP2) {
					l.forget(address)
				}
				if sent {
					err = seenError{finalError{err}}
				}
				return ended(ctx, err)
			}
		}
		reused := x.conn.reused
		begun, err := x.try(w, r)
		if err == nil {
			return nil
		}
		x.drop()
		if errors.Is(err, errGone) && ctx.Err() == nil {
			x.conn = l.conns.get(address)
			continue
		}
		// The target may have closed the connection while it was idle, which is no
		// failure of the request: another connection tells. It may also have taken the
		// request and failed, so that this is only for what may be repeated.
		if begun || !reused || ctx.Err() != nil || !repeatable(r) || !closedByPeer(err) {
			return ended(ctx, err)
		}
		sent = true
	}
}

// ended returns why a request was ended, if it was, rather than what came of that.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// try does it on one connection, and says whether the answer has begun.
func (x *laneExchange) try(w http.ResponseWriter, r *http.Request) (begun bool, err error) {
	c := x.conn
	x.stop = context.AfterFunc(r.Context(), c.interrupt)
	if err := c.send(x.request.bytes, x.lane.header); err != nil {
		return false, fmt.Errorf("sending the request: %w", err)
	}
	x.reader.Reset(c)
	for {
		if err := x.reader.ReadHead(&x.head); err != nil {
			begun = begun || x.reader.Buffered() > 0
			if sendErr := c.sendError(); sendErr != nil {
				return begun, fmt.Errorf("sending the request: %w", sendErr)
			}
			if x.lane.header > 0 && isTimeout(err) {
				err = errHeaderTimeout
			}
			return begun, fmt.Errorf("reading the answer: %w", err)
		}
		begun = true
		switch {
		case x.head.Informational():
			writeInterim(w, &x.head)
			continue
		case x.head.Status == http.StatusSwitchingProtocols:
			return true, errUnaskedUpgrade
		}
		c.wait(0)
		x.body = x.reader.Body(&x.head, r.Method)
		return true, nil
	}
}

// repeatable says whether a request may be sent once more on a new connection, without
// anybody being asked, as http.Transport sees it: never with a body.
func repeatable(r *http.Request) bool {
	if r.ContentLength != 0 {
		return false
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return true
	}
	_, key := r.Header["Idempotency-Key"]
	_, xkey := r.Header["X-Idempotency-Key"]
	return key || xkey
}

// closedByPeer says whether a connection was closed, or reset, before an answer.
func closedByPeer(err error) bool { return !isTimeout(err) && !errors.Is(err, http1.ErrMalformed) }

func isTimeout(err error) bool {
	t, ok := errors.AsType[interface {
		error
		Timeout() bool
	}](err)
	return ok && t.Timeout()
}

// errHeaderTimeout says that a target has not begun its answer in time.
var errHeaderTimeout error = headerTimeout{}

type headerTimeout struct{}

func (headerTimeout) Error() string {
	return "the upstream did not begin its answer within upstream.timeouts.response_header"
}
func (headerTimeout) Timeout() bool   { return true }
func (headerTimeout) Temporary() bool { return true }

// read reads the body with the bound on a target's silence.
func (x *laneExchange) read(p []byte) (int, error) {
	if x.idle > 0 && !x.body.Ready() {
		x.conn.wait(x.idle)
		n, err := x.body.Read(p)
		x.conn.wait(0)
		if err != nil && isTimeout(err) {
			err = errSilent
		}
		return n, err
	}
	return x.body.Read(p)
}

// discard throws the answer away so that its connection can be used again, unless
// that would take long.
func (x *laneExchange) discard() {
	if left := x.body.Left(); left > 0 && left <= discardMost {
		x.conn.wait(discardPatience)
		for {
			var b [1024]byte
			if _, err := x.body.Read(b[:]); err != nil {
				break
			}
		}
	}
	x.done()
}

// done gives the connection back, if its request was sent to its end, its answer read to
// its end, and nothing came behind that. Otherwise it closes it.
func (x *laneExchange) done() {
	c := x.conn
	if c == nil {
		return
	}
	if !x.stop() || !x.body.Ended() || x.head.Close || x.reader.Buffered() > 0 || !c.sent() {
		_ = c.Close()
	} else {
		c.wait(0)
		x.lane.conns.put(x.address, c)
	}
	x.conn, x.stop = nil, nil
}

// drop closes the connection.
func (x *laneExchange) drop() {
	if x.conn == nil {
		return
	}
	x.stop()
	_ = x.conn.Close()
	x.conn, x.stop = nil, nil
}

// free gives x back for another request.
func (x *laneExchange) free() {
	x.reset()
	laneExchanges.Put(x)
}

// reset makes x forget its request.
func (x *laneExchange) reset() {
	x.drop()
	x.reader.Reset(nil)
	x.request.reset()
	fields := x.head.Fields[:0]
	if cap(fields) > maxKeptFields {
		fields = nil
	}
	// An earlier answer to the same request may have had more of them than the last.
	clear(fields[:cap(fields)])
	x.head, x.body = http1.Head{Fields: fields}, http1.Body{}
	x.lane, x.address, x.idle, x.untyped = nil, "", 0, false
}
