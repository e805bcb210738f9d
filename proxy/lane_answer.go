package proxy

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"
	"sync"

	"github.com/isekai-gateway/isekai/proxy/http1"
)

// copyBuffers are for bodies on their way. To leave the copying to the kernel, by
// splice(2), was measured: it costs more from one socket of this machine to another.
var copyBuffers = sync.Pool{New: func() any { return new(copyBuffer) }}

type copyBuffer [64 << 10]byte

// send writes the answer to the client, as reverse_proxy would. An answer that can't
// be sent whole is broken off, by a panic.
func (f *Forwarder) send(x *laneExchange, w http.ResponseWriter) {
	x.idle = f.pool.idle
	h := w.Header()
	delete(h, "Server")
	values := make([]string, 1, len(x.head.Fields)+1)
	values[0] = viaUs(x.head.Minor)
	addField(h, "Via", values[:1:1])
	announced := 0
	stream := x.body.Left() < 0
	for i := range x.head.Fields {
		field := &x.head.Fields[i]
		switch field.Name {
		case "Trailer":
			if x.head.Chunked {
				announced += announce(h, field.Value)
			}
			continue
		case "Content-Type":
			stream = stream || isEventStream(field.Value)
		case "Incremental":
			stream = true
		}
		if x.head.HopByHop(field.Name) {
			continue
		}
		values = append(values, field.Value)
		n := len(values)
		addField(h, field.Name, values[n-1:n:n])
	}
	_, typed := h["Content-Type"]
	x.untyped = !typed
	w.WriteHeader(x.head.Status)
	if err := x.copyBody(w, stream); err != nil {
		x.drop()
		f.cut(w, err)
	}
	if trailer := x.body.Trailer; len(trailer) > 0 {
		sendTrailer(w, trailer, announced)
	}
	x.done()
}

// addField adds values, which h may keep, to a field. What is there has room to grow
// once it was added to, so that a field of many lines is not copied with each.
func addField(h http.Header, name string, values []string) {
	if before := h[name]; len(before) > 0 {
		values = append(before, values...)
	}
	h[name] = values
}

func viaUs(minor int) string {
	if minor == 0 {
		return "1.0 Caddy"
	}
	return "1.1 Caddy"
}

func isEventStream(contentType string) bool {
	media, _, _ := strings.Cut(contentType, ";")
	return strings.EqualFold(strings.TrimSpace(media), "text/event-stream")
}

// announce tells the client of the fields that a trailer will have, and returns how
// many they are.
func announce(h http.Header, value string) int {
	n := 0
	for name := range strings.SplitSeq(value, ",") {
		if name = http.CanonicalHeaderKey(strings.TrimSpace(name)); name != "" {
			h.Add("Trailer", name)
			n++
		}
	}
	return n
}

// copyBody sends the body to the client: each part at once if it is a stream and the
// next one has not come yet.
func (x *laneExchange) copyBody(w http.ResponseWriter, stream bool) error {
	if x.body.Ended() {
		return nil
	}
	if !stream {
		if part := x.body.Buffered(); len(part) > 0 {
			if err := x.write(w, part); err != nil {
				return err
			}
			x.body.Discard(len(part))
		}
	}
	if x.body.Ended() {
		return nil
	}
	buf := copyBuffers.Get().(*copyBuffer)
	defer copyBuffers.Put(buf)
	for {
		if stream && !x.body.Ready() {
			if err := http.NewResponseController(w).Flush(); err != nil && !errors.Is(err, http.ErrNotSupported) {
				return fmt.Errorf("writing: %w", err)
			}
		}
		n, err := x.read(buf[:])
		if n > 0 {
			if err := x.write(w, buf[:n]); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF) && x.body.Ended():
			return nil
		case err != nil:
			return fmt.Errorf("reading: %w", err)
		}
	}
}

// guessed is how much of a body its type is guessed by.
const guessed = 512

// write writes a part of the body to the client. Of an answer without a type, HTTP/3's
// server guesses one only by what it has buffered when more comes.
func (x *laneExchange) write(w io.Writer, p []byte) error {
	if x.untyped && len(p) > guessed {
		if err := writeAll(w, p[:guessed]); err != nil {
			return err
		}
		p = p[guessed:]
	}
	x.untyped = false
	return writeAll(w, p)
}

func writeAll(w io.Writer, p []byte) error {
	n, err := w.Write(p)
	switch {
	case err != nil:
		return fmt.Errorf("writing: %w", err)
	case n < len(p):
		return fmt.Errorf("writing: %w", io.ErrShortWrite)
	}
	return nil
}

// sendTrailer sends what came behind the body, as reverse_proxy does: what was not
// announced goes too.
func sendTrailer(w http.ResponseWriter, trailer []http1.Field, announced int) {
	// Without a flush, net/http would give a short body a length, and no trailer.
	_ = http.NewResponseController(w).Flush()
	names := make(map[string]struct{}, len(trailer))
	for _, field := range trailer {
		names[field.Name] = struct{}{}
	}
	prefix := http.TrailerPrefix
	if len(names) == announced {
		prefix = ""
	}
	for _, field := range trailer {
		name := prefix + field.Name
		w.Header()[name] = append(w.Header()[name], field.Value)
	}
}

// writeInterim passes an interim answer on, such as 103.
func writeInterim(w http.ResponseWriter, head *http1.Head) {
	h := w.Header()
	own := h.Clone()
	for _, field := range head.Fields {
		if !head.HopByHop(field.Name) {
			h.Add(field.Name, field.Value)
		}
	}
	w.WriteHeader(head.Status)
	clear(h)
	maps.Copy(h, own)
}
