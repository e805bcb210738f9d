package auth

import (
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/caddyauth"
	"go.uber.org/zap"
)

const directive = "isekai_auth"

func init() {
	caddy.RegisterModule(new(Handler))
	caddy.RegisterModule(new(Provider))
	httpcaddyfile.RegisterHandlerDirective(directive, parseCaddyfile)
	httpcaddyfile.RegisterDirectiveOrder(directive, httpcaddyfile.After, "basic_auth")
}

func parseCaddyfile(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	handler := new(Handler)
	return handler, handler.UnmarshalCaddyfile(h.Dispenser)
}

// Handler lets only those through who say who they are, for a whole site: by an API
// key, a JSON Web Token, a password or a client certificate. It does for a site what
// auth does for a route.
//
// Credentials are removed from the request, and the handlers after this one see who
// made it in header fields and in {http.auth.user.*}. Others are answered 401 with
// WWW-Authenticate, 403 if they are in none of the groups, 429 after too many wrong
// passwords, and 503 if their credentials can't be checked now.
type Handler struct {
	Site
}

// CaddyModule returns the Caddy module information.
func (*Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers." + directive, New: func() caddy.Module { return new(Handler) }}
}

// ServeHTTP implements caddyhttp.MiddlewareHandler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	repl := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	h.policy.verifier.Clean(r)
	id, err := h.policy.Authenticate(r, repl)
	if id != nil {
		Log(r, id)
	}
	if err != nil {
		return Refuse(w.Header(), err)
	}
	if id != nil {
		h.policy.verifier.leave(r, id)
	}
	return next.ServeHTTP(w, r)
}

// Log adds the caller's name to the access log's entry of the request, as consumer.
func Log(r *http.Request, id *Identity) {
	if extra, ok := r.Context().Value(caddyhttp.ExtraLogFieldsCtxKey).(*caddyhttp.ExtraLogFields); ok {
		extra.Set(zap.String("consumer", id.Name))
	}
}

// Provider is the same as a provider for Caddy's own authentication handler. That
// handler knows one answer only: prefer isekai_auth, since a store that can't be
// asked and the wrong group are answered 401 here. With other providers beside this
// one, do without anonymous, which lets everybody through.
type Provider struct {
	Site
}

// Provision compiles the policy.
func (p *Provider) Provision(ctx caddy.Context) error {
	if err := p.Site.Provision(ctx); err != nil {
		return err
	}
	p.policy.sparing = true
	return nil
}

// CaddyModule returns the Caddy module information.
func (*Provider) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.authentication.providers.isekai", New: func() caddy.Module { return new(Provider) }}
}

// Authenticate implements caddyauth.Authenticator.
func (p *Provider) Authenticate(w http.ResponseWriter, r *http.Request) (caddyauth.User, bool, error) {
	repl := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	p.policy.verifier.Clean(r)
	id, err := p.policy.Authenticate(r, repl)
	switch {
	case err != nil:
		return caddyauth.User{}, false, Refuse(w.Header(), err)
	case id == nil:
		return caddyauth.User{}, true, nil
	}
	Log(r, id)
	p.policy.verifier.leave(r, id)
	return caddyauth.User{ID: id.ID, Metadata: id.User()}, true, nil
}

// Interface guards
var (
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
	_ caddy.Provisioner           = (*Provider)(nil)
	_ caddyauth.Authenticator     = (*Provider)(nil)
)
