package pipeline

import (
	"errors"
	"fmt"
	"maps"
	"net/http"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// maxHeld is the most bytes of an answer's body that plugins may hold back to
// change it. Caddy's own recorder, which intercept uses, has no bound.
const maxHeld = 4 << 20

// errHeld says that an answer was too long to be held back.
var errHeld = fmt.Errorf("a plugin holds answers back to change them, and this one is longer than %d bytes", maxHeld)

// recorder is a caddyhttp.ResponseRecorder, as far as it matters here.
type recorder interface{ Buffered() bool }

// heldWriter is where an upstream's answer goes if a plugin may hold it back.
type heldWriter struct {
	http.ResponseWriter
	recorders []recorder
	before    http.Header // as it was before the answer
	wrote     bool
	bytes     int
	exceeded  bool
}

// boundHeld returns a writer in the place of w if one of the writers that
// plugins have put before the exchange's own may hold an answer back, else nil.
func boundHeld(w http.ResponseWriter) *heldWriter {
	var recorders []recorder
	for inner := w; ; {
		if _, ok := inner.(*writer); ok {
			break
		}
		if r, ok := inner.(recorder); ok {
			recorders = append(recorders, r)
		}
		unwrapper, ok := inner.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			break
		}
		inner = unwrapper.Unwrap()
	}
	if recorders == nil {
		return nil
	}
	return &heldWriter{ResponseWriter: w, recorders: recorders, before: w.Header().Clone()}
}

// Unwrap is for http.ResponseController.
func (w *heldWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// WriteHeader implements http.ResponseWriter. It is what makes a recorder
// decide.
func (w *heldWriter) WriteHeader(status int) {
	w.wrote = w.wrote || status < 100 || status > 199
	w.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (w *heldWriter) Write(p []byte) (int, error) {
	if !w.wrote {
		w.WriteHeader(http.StatusOK)
	}
	for _, r := range w.recorders {
		if !r.Buffered() {
			continue
		}
		if w.bytes += len(p); w.bytes > maxHeld {
			w.exceeded = true
			return 0, errHeld
		}
		break
	}
	return w.ResponseWriter.Write(p)
}

// recover turns the panic by which reverse_proxy breaks off an answer into an
// error, if it was the bound that it met: nothing has gone to the client yet.
func (w *heldWriter) recover(err *error) {
	if !w.exceeded {
		return
	}
	if p := recover(); p != nil {
		if failure, ok := p.(error); !ok || !errors.Is(failure, http.ErrAbortHandler) {
			panic(p)
		}
	}
	// What the header says of the answer goes with it.
	h := w.Header()
	clear(h)
	maps.Copy(h, w.before)
	*err = caddyhttp.Error(http.StatusBadGateway, errHeld)
}
