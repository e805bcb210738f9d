package proxy

import (
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// sourcePanic is a panic of a source, e.g. of a plugin's reader around the body.
type sourcePanic struct {
	value any
	stack []byte
}

// String implements fmt.Stringer. The stack is that of the panic: where it is seen again
// there is another.
func (p *sourcePanic) String() string {
	return fmt.Sprintf("%v, when the request's body was read\n%s", p.value, p.stack)
}

// Errors of sources that do not do what an io.Reader must.
var (
	errSourcePanicked = errors.New("a reader of the request's body has panicked")
	errSourceCount    = errors.New("a reader of the request's body has read more than it was asked for")
)

// readSource reads the source. It runs on goroutines on which a panic would end the whole
// process: that becomes an error here, and is one of the request's goroutine in rethrow.
func (b *replay) readSource(p []byte) (n int, err error) {
	defer func() {
		if value := recover(); value != nil {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.panicked = &sourcePanic{value, debug.Stack()}
			n, err = 0, errSourcePanicked
		}
	}()
	n, err = b.source.Read(p)
	if n < 0 || n > len(p) {
		return 0, caddyhttp.Error(http.StatusInternalServerError, errSourceCount)
	}
	return n, err
}

// rethrow panics as the source has, on the request's goroutine, where whoever embeds the
// forwarder sees it. b may be nil.
func (b *replay) rethrow() {
	if b == nil {
		return
	}
	b.mu.Lock()
	p := b.panicked
	b.mu.Unlock()
	switch {
	case p == nil:
	case p.value == http.ErrAbortHandler:
		panic(p.value)
	default:
		panic(p)
	}
}
