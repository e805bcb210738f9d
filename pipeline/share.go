package pipeline

import (
	"net/http"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/isekai-gateway/isekai/cors"
)

// Share has the header of an answer that is made in the route's place say which
// pages of other origins may read it. It does nothing for a route without cors.
func (p *Pipeline) Share(h http.Header, r *http.Request) {
	if p.cors != nil {
		p.cors.Apply(h, r)
	}
}

// answerPreflight answers in place of the upstream, before any other policy.
func (p *Pipeline) answerPreflight(w http.ResponseWriter, r *http.Request, x *Exchange) error {
	if !p.cors.Preflight(w.Header(), r) {
		return caddyhttp.Error(http.StatusForbidden, cors.ErrOrigin)
	}
	w.WriteHeader(http.StatusNoContent)
	x.writer.status = http.StatusNoContent
	return nil
}

// shareError has the header of an answer that is still to be made, after an error
// or a panic, say which pages may read it.
func (x *Exchange) shareError() {
	if x.writer.status == 0 && !x.writer.hijacked {
		x.writer.cors.ApplyTo(x.writer.Header(), x.origin)
	}
}
