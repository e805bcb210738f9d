package pipeline

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/isekai-gateway/isekai/cors"
	"github.com/isekai-gateway/isekai/proxy"
)

// writer is the answer of one exchange: it sees the header before it leaves and
// counts what follows.
type writer struct {
	http.ResponseWriter
	exchange *Exchange
	status   int
	bytes    int64
	hijacked bool
	http10   bool
	limits   *verdict     // what the answer says of rate limits; may be nil
	cors     *cors.Policy // of the route, in place of an upstream's; may be nil
}

// Unwrap is for http.ResponseController.
func (w *writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// WriteHeader implements http.ResponseWriter.
func (w *writer) WriteHeader(status int) {
	informational := status >= 100 && status < 200 && status != http.StatusSwitchingProtocols
	switch {
	case status < 100 || status > 999:
		// As in net/http, but while it still can be answered with an error.
		panic(fmt.Sprintf("invalid status %d", status))
	case informational:
		// A client of HTTP/1.0 would take it for the answer (RFC 9110, 15.2).
		if !w.http10 {
			w.ResponseWriter.WriteHeader(status)
		}
		return
	case w.status != 0:
		return
	case status == proxy.StatusClientClosedRequest && w.exchange.awaited():
		// reverse_proxy takes every cancellation, and every body that could not be
		// read, for a client that went away. This one waits for its answer.
		return
	}
	w.status = status
	h := w.Header()
	w.exchange.TagAnswer(h)
	if w.limits != nil {
		w.limits.writeTo(h)
	}
	if w.cors != nil {
		w.cors.ApplyTo(h, w.exchange.origin)
	}
	if w.exchange.body != nil && w.exchange.body.overtaken() && status != http.StatusSwitchingProtocols {
		h.Set("Connection", "close")
	}
	if status == http.StatusSwitchingProtocols || w.exchange.extended && status == http.StatusOK || isStream(h.Get("Content-Type")) {
		w.exchange.stream()
	}
	w.ResponseWriter.WriteHeader(status)
	w.flushEarly()
}

// flushEarly sends what there is of an answer that has overtaken its request's
// body: a transport may wait for more of that, and the client must not wait for
// the transport.
func (w *writer) flushEarly() {
	if b := w.exchange.body; b != nil && b.overtaken() {
		_ = http.NewResponseController(w.ResponseWriter).Flush()
	}
}

// Write implements http.ResponseWriter.
func (w *writer) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	n, err := w.ResponseWriter.Write(p)
	w.bytes += int64(n)
	w.exchange.deadline.touch()
	w.flushEarly()
	return n, err
}

// ReadFrom implements io.ReaderFrom, so that the kernel can do the copying
// where nothing has to be seen of it.
func (w *writer) ReadFrom(src io.Reader) (int64, error) {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	if w.exchange.deadline.idling.Load() {
		return io.Copy(writerOnly{w}, src)
	}
	n, err := io.Copy(w.ResponseWriter, src)
	w.bytes += n
	w.flushEarly()
	return n, err
}

// writerOnly hides ReadFrom from io.Copy.
type writerOnly struct{ io.Writer }

// FlushError is for http.ResponseController.
func (w *writer) FlushError() error {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// Flush implements http.Flusher.
func (w *writer) Flush() { _ = w.FlushError() }

// Hijack is for http.ResponseController. Traffic on the connection counts as
// the exchange's activity.
func (w *writer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, brw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	w.hijacked = true
	return &activeConn{Conn: conn, deadline: &w.exchange.deadline}, brw, nil
}

// isStream says whether an answer of this type goes on as long as both sides
// like, so that only its silence is limited.
func isStream(contentType string) bool {
	media, _, _ := strings.Cut(contentType, ";")
	media = strings.TrimSpace(media)
	return strings.EqualFold(media, "text/event-stream") ||
		len(media) >= len("application/grpc") && strings.EqualFold(media[:len("application/grpc")], "application/grpc")
}

// activeConn is a hijacked connection whose traffic keeps its exchange alive.
type activeConn struct {
	net.Conn
	deadline *deadline
}

func (c *activeConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.deadline.touch()
	return n, err
}

func (c *activeConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.deadline.touch()
	return n, err
}

// CloseWrite lets a half-close pass, as reverse_proxy does.
func (c *activeConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return c.Conn.Close()
}

// lingerTime and lingerBytes bound what is read of a body that nobody wanted, so
// that the client can take its answer before the connection is reset. They are
// net/http's own figures.
const (
	lingerTime  = 500 * time.Millisecond
	lingerBytes = 256 << 10
)

// restTime is how long the client of an answer that did not come from an upstream
// may take to send what net/http reads of a body that nobody has begun to read.
const restTime = 5 * time.Second

// linger lets the client of an early answer finish what it is sending.
func (w *writer) linger() {
	b := w.exchange.body
	if b == nil || !b.http1 || w.hijacked || w.status == 0 || b.done.Load() {
		return
	}
	controller := http.NewResponseController(w.ResponseWriter)
	if !b.overtaken() {
		_ = controller.SetReadDeadline(time.Now().Add(restTime))
		return
	}
	if controller.Flush() != nil || controller.SetReadDeadline(time.Now().Add(lingerTime)) != nil {
		return
	}
	_, _ = io.CopyN(io.Discard, b.ReadCloser, lingerBytes)
}
