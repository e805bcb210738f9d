package cors

import (
	"fmt"
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

func init() { caddy.RegisterModule(new(Handler)) }

// Handler lets pages of other origins use what the handlers after it serve, by
// the CORS protocol. It needs neither routes nor the isekai app.
//
// It answers preflights itself, so they reach neither authentication nor rate
// limits: 204 for an allowed origin, error 403 without any CORS field for others.
// All other requests pass, whatever their origin; it is for the browser to keep
// their answers from the page. The answers' CORS fields, such as an upstream's
// own, are replaced, and those of errors are set for handle_errors to keep.
//
// If several of these handlers see a request, the outermost has the last word.
type Handler struct {
	Config

	policy *Policy
}

// CaddyModule returns the Caddy module information.
func (*Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.isekai_cors",
		New: func() caddy.Module { return new(Handler) },
	}
}

// Provision compiles the policy.
func (h *Handler) Provision(caddy.Context) error {
	policy, err := New(h.Config)
	if err != nil {
		return fmt.Errorf("compiling policy: %w", err)
	}
	h.policy = policy
	return nil
}

// ServeHTTP answers a preflight, and has any other answer carry the policy's
// fields.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if IsPreflight(r) {
		if !h.policy.Preflight(w.Header(), r) {
			return caddyhttp.Error(http.StatusForbidden, ErrOrigin)
		}
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	fw := &fieldWriter{policy: h.policy, origin: Origin(r)}
	fw.ResponseWriter = w
	err := next.ServeHTTP(fw, r)
	fw.writeFields() // for a response without a body, or an error's
	return err
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddy.Validator             = (*Handler)(nil) // by Config
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
)
