package mirror

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
)

// headCost is about what a copy takes in memory without its texts, in bytes.
const headCost = 1 << 10

// firstRoom is the room that is taken for a body at first, in bytes.
const firstRoom = 4 << 10

// Copy is a copy of one request. While the request is forwarded, it stands in for
// the request's body.
type Copy struct {
	mirror  *Mirror
	method  string
	url     url.URL
	host    string
	header  http.Header
	length  int64 // as announced, -1 if it wasn't
	memory  int64 // reserved
	trailer http.Header

	original io.ReadCloser
	source   *http.Request // has the trailers once the body is read

	mu      sync.Mutex
	body    []byte
	settled bool // it was queued or dropped, and is not ours any more
}

func newCopy(m *Mirror, r *http.Request) *Copy {
	c := &Copy{
		mirror: m, method: r.Method, url: *r.URL, host: m.host,
		header: outgoing(r), length: r.ContentLength,
	}
	if c.host == "" {
		c.host = r.Host
	}
	m.address(&c.url)
	c.memory = headCost + int64(len(c.url.Path)+len(c.url.RawPath)+len(c.url.RawQuery))
	for name, values := range c.header {
		c.memory += int64(len(name))
		for _, value := range values {
			c.memory += int64(len(value))
		}
	}
	return c
}

// Read implements io.Reader: it reads the original body and keeps what was read.
func (c *Copy) Read(p []byte) (int, error) {
	n, err := c.original.Read(p)
	c.keep(p[:n], err)
	return n, err
}

// Close implements io.Closer.
func (c *Copy) Close() error { return c.original.Close() }

// keep adds to the copy what was read of the body, with the error that came with it.
func (c *Copy) keep(p []byte, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.settled {
		return
	}
	queue := c.mirror.destination.queue
	switch {
	case int64(len(c.body)+len(p)) > c.mirror.bodyMax:
		c.settled = true
		c.drop(&queue.counters.tooLarge)
		return
	case !c.grow(len(p)):
		c.settled = true
		c.dropFull()
		return
	}
	c.body = append(c.body, p...)
	switch {
	case err == nil:
	case errors.Is(err, io.EOF) && (c.length < 0 || int64(len(c.body)) == c.length):
		c.settled = true
		c.trailer = c.source.Trailer.Clone()
		queue.push(c)
	default:
		c.settled = true
		c.drop(&queue.counters.incomplete)
	}
}

// grow makes room for n more bytes of the body, if there is memory left.
func (c *Copy) grow(n int) bool {
	need := len(c.body) + n
	if need <= cap(c.body) {
		return true
	}
	room := max(need, 2*cap(c.body), firstRoom)
	if most := int(c.mirror.bodyMax); c.length < 0 {
		room = min(room, most)
	} else if need <= int(c.length) {
		room = min(room, int(c.length))
	}
	more := int64(room - cap(c.body))
	if !c.mirror.destination.reserve(more) {
		return false
	}
	c.memory += more
	body := make([]byte, len(c.body), room)
	copy(body, c.body)
	c.body = body
	return true
}

// end settles a copy whose request has been forwarded. A body that was not read to
// its end makes no copy: the client has broken it off, or the answer came early.
func (c *Copy) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.settled {
		return
	}
	c.settled = true
	queue := c.mirror.destination.queue
	if int64(len(c.body)) == c.length {
		queue.push(c)
		return
	}
	c.drop(&queue.counters.incomplete)
}

// drop gives the copy up, counting why.
func (c *Copy) drop(why *atomic.Int64) {
	why.Add(1)
	c.release()
}

// dropFull gives the copy up since there is no room for it.
func (c *Copy) dropFull() {
	d := c.mirror.destination
	c.drop(&d.queue.counters.queueFull)
	d.report("copies are dropped, since the mirror does not keep up", nil)
}

// release gives back what the copy has taken.
func (c *Copy) release() {
	c.body, c.source = nil, nil
	c.mirror.destination.free(c.memory)
	c.mirror.destination.release()
}

// request returns the copy as a request to send.
func (c *Copy) request(ctx context.Context) *http.Request {
	r := &http.Request{
		Method: c.method, URL: &c.url, Host: c.host, Header: c.header, Trailer: c.trailer,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	}
	if len(c.body) > 0 || len(c.trailer) > 0 {
		r.ContentLength = int64(len(c.body))
		if c.length < 0 || len(c.trailer) > 0 {
			r.ContentLength = -1
		}
		body := c.body
		r.Body = io.NopCloser(bytes.NewReader(body))
		r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	}
	return r.WithContext(ctx)
}
