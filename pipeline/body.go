package pipeline

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/isekai-gateway/isekai/internal/fields"
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
//
// It also holds the route's bound: what is longer ends with an error, never with
// an end, so that the transport breaks off and the upstream can't take a part
// for the whole.
type body struct {
	io.ReadCloser
	exchange  *Exchange
	http1     bool
	expects   bool  // its client waits to be asked for it (RFC 9110, 10.1.1)
	forwarded bool  // the upstream may have seen the request
	most      int64 // bytes, 0 for no bound
	trailer   http.Header
	own       []string // trailers that clients must not send, in canonical form
	read      atomic.Int64
	began     atomic.Bool
	done      atomic.Bool // read to its end
	tooLarge  atomic.Bool // it has more than most bytes
	closed    atomic.Bool // by the transport
	hurried   atomic.Bool // a Read that is under way has a deadline
	ended     atomic.Bool // the exchange is over

	// Held while the answer's writer is used from another goroutine than the
	// handler's: after the exchange it must not be.
	mu sync.Mutex
}

func (b *body) Read(p []byte) (int, error) {
	if b.ended.Load() || b.closed.Load() {
		return 0, http.ErrBodyReadAfterClose
	}
	b.began.Store(true)
	if b.most > 0 {
		if b.tooLarge.Load() {
			return 0, ErrBodyTooLarge
		}
		// One byte more than allowed tells that there is more.
		p = p[:min(int64(len(p)), b.most-b.read.Load()+1)]
	}
	n, err := b.ReadCloser.Read(p)
	read := b.read.Add(int64(n))
	switch {
	case b.most > 0 && read > b.most:
		b.tooLarge.Store(true)
		n, err = n-1, ErrBodyTooLarge
	case err == io.EOF:
		b.done.Store(true)
		// net/http puts all that came behind the body among those announced.
		fields.Drop(b.trailer, b.own)
		if b.hurried.Load() {
			b.setReadDeadline(time.Time{})
		}
	}
	b.exchange.deadline.touch()
	return n, err
}

// notTrailers are fields that no client may send behind a body, where plugins and the
// gateway's own checks do not look.
var notTrailers = slices.Concat(fields.Claims, fields.Rebuilt, fields.Asked)

// protect keeps the client from repeating, behind the body, a field of the header that
// the upstream gets, or one that says who the client is: some servers put both together.
func (b *body) protect(header http.Header) {
	if b.trailer == nil {
		return
	}
	b.own = slices.Concat(b.own, notTrailers, slices.Collect(maps.Keys(header)))
	fields.Drop(b.trailer, b.own)
}

func (b *body) Close() error {
	if b.closed.Swap(true) {
		return nil
	}
	if !b.http1 {
		return b.ReadCloser.Close()
	}
	if b.began.Load() {
		b.hurry(true)
	}
	return nil
}

// hurry gives a Read that is under way a deadline, or takes it back. A transport
// over HTTP/2 waits for its Read, and the answer with it, until a client sends
// something that may never do so.
func (b *body) hurry(on bool) {
	b.hurried.Store(on)
	if on {
		b.setReadDeadline(time.Now().Add(lingerTime))
	}
	if !on || b.done.Load() {
		b.setReadDeadline(time.Time{})
	}
}

// setReadDeadline bounds how long a Read that is under way may take. A server
// without support for deadlines has no connection to wait for either.
func (b *body) setReadDeadline(t time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ended.Load() {
		return
	}
	_ = http.NewResponseController(b.exchange.writer.ResponseWriter).SetReadDeadline(t)
}

// end notes that the exchange is over.
func (b *body) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ended.Store(true)
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

// tooLargeError says what is allowed.
func tooLargeError(most int64) error {
	return caddyhttp.Error(http.StatusRequestEntityTooLarge, fmt.Errorf("%w: at most %d bytes are allowed", ErrBodyTooLarge, most))
}

// closeBehind has net/http give the client half a second to read an answer behind
// which the connection closes: one that is closed with some of a body unread is
// reset, which may take the answer away. net/http does so when it has cut a body
// itself, so it gets one to cut. Only the handler's goroutine may call this, for
// it sets a header field.
func closeBehind(w http.ResponseWriter) {
	for {
		wrapper, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			break
		}
		w = wrapper.Unwrap()
	}
	_, _ = http.MaxBytesReader(w, io.NopCloser(strings.NewReader("x")), 0).Read(make([]byte, 1))
}
