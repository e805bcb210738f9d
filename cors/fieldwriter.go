package cors

import (
	"io"
	"net/http"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// fieldWriter applies a policy to a response at the last moment, when the fields
// of an upstream are there. Whatever may send the response's head comes by here
// first.
type fieldWriter struct {
	caddyhttp.ResponseWriterWrapper
	policy  *Policy
	origin  string // the client's: what comes after may have changed it
	written bool
}

// WriteHeader implements http.ResponseWriter. Interim responses pass as they are.
func (w *fieldWriter) WriteHeader(status int) {
	if status >= 200 || status == http.StatusSwitchingProtocols {
		w.writeFields()
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (w *fieldWriter) Write(p []byte) (int, error) {
	w.writeFields()
	return w.ResponseWriter.Write(p)
}

// ReadFrom implements io.ReaderFrom.
func (w *fieldWriter) ReadFrom(r io.Reader) (int64, error) {
	w.writeFields()
	return w.ResponseWriterWrapper.ReadFrom(r)
}

// FlushError is what http.ResponseController flushes by.
func (w *fieldWriter) FlushError() error {
	w.writeFields()
	return http.NewResponseController(w.ResponseWriter).Flush()
}

func (w *fieldWriter) writeFields() {
	if !w.written {
		w.written = true
		w.policy.ApplyTo(w.Header(), w.origin)
	}
}

// Interface guards
var (
	_ http.ResponseWriter = (*fieldWriter)(nil)
	_ io.ReaderFrom       = (*fieldWriter)(nil)
)
