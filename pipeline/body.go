package pipeline

import (
	"io"
	"net/http"
	"sync/atomic"
	"time"
)

// body is a request's body on its way to the upstream. It closes a hole:
//
// When an upstream answers before it has read the whole body, the transport
// closes the body early. net/http would then close the client's connection, but
// it recognises only its own body type, and Caddy's server wraps the body by
// default. The connection would stay open and the rest of the body be parsed as
// further requests: request smuggling. So this type keeps the transport's Close
// from net/http, which finishes or discards the body itself when the handler
// returns, and an answer that begins before the body's end says that the
// connection closes after it.
type body struct {
	io.ReadCloser
	exchange  *Exchange
	http1     bool
	expects   bool // its client waits to be asked for it (RFC 9110, 10.1.1)
	forwarded bool // the upstream may have seen the request
	began     atomic.Bool
	done      atomic.Bool // read to its end
	broken    atomic.Bool // the client sent it malformed, cut or too slowly
	closed    atomic.Bool // by the transport
	ended     atomic.Bool // the exchange is over
}

func (b *body) Read(p []byte) (int, error) {
	if b.ended.Load() || b.closed.Load() {
		return 0, http.ErrBodyReadAfterClose
	}
	b.began.Store(true)
	n, err := b.ReadCloser.Read(p)
	switch {
	case err == io.EOF:
		b.done.Store(true)
		if b.closed.Load() {
			b.setReadDeadline(time.Time{})
		}
	case err != nil && !b.closed.Load():
		b.broken.Store(true)
	}
	b.exchange.deadline.touch()
	return n, err
}

func (b *body) Close() error {
	if b.closed.Swap(true) {
		return nil
	}
	if !b.http1 {
		return b.ReadCloser.Close()
	}
	if b.began.Load() && !b.done.Load() {
		// A transport over HTTP/2 waits for its Read, and the answer with it, until
		// a client sends something that may never do so.
		b.setReadDeadline(time.Now().Add(lingerTime))
		if b.done.Load() {
			b.setReadDeadline(time.Time{})
		}
	}
	return nil
}

// setReadDeadline bounds how long a Read that is under way may take. A server
// without support for deadlines has no connection to wait for either.
func (b *body) setReadDeadline(t time.Time) {
	_ = http.NewResponseController(b.exchange.writer.ResponseWriter).SetReadDeadline(t)
}

// mustClose says whether the connection can't carry another request. A body
// that nobody has begun to read is left to net/http, which knows what to do,
// unless its client waits to be asked for it: behind Caddy's wrapper net/http
// does not see that, and would wait for it in turn before it sends the answer.
func (b *body) mustClose() bool {
	return b.http1 && (b.began.Load() || b.expects) && !b.done.Load()
}

// overtaken says whether an answer that begins now has overtaken the body. What
// an upstream answers must not wait for the rest, as it would in net/http.
func (b *body) overtaken() bool {
	return b.mustClose() || b.http1 && b.forwarded && !b.done.Load()
}
