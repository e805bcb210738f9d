package isekai

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/isekai-gateway/isekai/api"
	"github.com/isekai-gateway/isekai/auth"
	"github.com/isekai-gateway/isekai/cors"
	"github.com/isekai-gateway/isekai/gateway"
	"github.com/isekai-gateway/isekai/ratelimit"
	"github.com/isekai-gateway/isekai/store"
)

func init() {
	caddy.RegisterModule(new(AdminSite))
	httpcaddyfile.RegisterHandlerDirective("isekai_admin", parseAdminSite)
	// Of directives that are placed before the same one, the last registered is the
	// nearest: this one comes before isekai, whose init follows.
	httpcaddyfile.RegisterDirectiveOrder("isekai_admin", httpcaddyfile.Before, "respond")
}

// guesses is how many wrong tokens a client may send within a minute. Tokens have 280
// random bits, so this protects the store and the log rather than the tokens.
var guesses = ratelimit.Rule{Name: "guesses", Limit: 10, Window: time.Minute}

// guessScope keeps the counters of guesses apart from those of routes.
const guessScope = "isekai_admin"

// AdminSite serves the admin API below /api/ and at /health on an ordinary site, to
// holders of tokens. Other paths go to the next handler. Caddy's own admin endpoint
// can't be reached through it.
//
// A request carries its token as `Authorization: Bearer ist_...`. Tokens are kept
// hashed in the store and have a role: read (GET and HEAD), write (changes too) or
// admin (tokens too). `caddy isekai token create` makes the first one. A client that
// sends ten wrong ones within a minute is answered 429 until that has passed; IPv6
// clients are counted by their /64. The history has the token's name as the author of
// changes.
//
// Give it a site of its own, with TLS, and if it can be, an address that only you
// reach.
type AdminSite struct {
	// The origins whose pages may use the API from a browser, e.g.
	// `https://console.example.com`; no wildcards but for subdomains. Default: none.
	Origins []string `json:"origins,omitempty"`

	app    *App
	cors   *cors.Policy
	logger *zap.Logger
}

// CaddyModule returns the Caddy module information.
func (*AdminSite) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.isekai_admin", New: func() caddy.Module { return new(AdminSite) }}
}

// Provision finds the app.
func (s *AdminSite) Provision(ctx caddy.Context) error {
	s.logger = ctx.Logger()
	app, err := ctx.AppIfConfigured("isekai")
	if err != nil {
		return fmt.Errorf("the isekai_admin handler needs the isekai app (in a Caddyfile, the global option isekai): %w", err)
	}
	s.app = app.(*App)
	if len(s.Origins) == 0 {
		return nil
	}
	for _, origin := range s.Origins {
		if origin == "*" || origin == "null" {
			return fmt.Errorf("origins: %q would let any page use the API", origin)
		}
	}
	s.cors, err = cors.New(cors.Config{
		Origins:       s.Origins,
		Methods:       []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"},
		Headers:       []string{"Authorization", "Content-Type", "If-Match", "If-None-Match"},
		ExposeHeaders: []string{"ETag", "Location", "Retry-After"},
		MaxAge:        600,
	})
	if err != nil {
		return fmt.Errorf("reading origins: %w", err)
	}
	return nil
}

// ServeHTTP implements caddyhttp.MiddlewareHandler.
func (s *AdminSite) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if !strings.HasPrefix(r.URL.Path, "/api/") && r.URL.Path != "/health" && !strings.HasPrefix(r.URL.Path, "/health/") {
		return next.ServeHTTP(w, r)
	}
	app, held := s.app.hold()
	if held {
		defer app.release() //nolint:errcheck // logged where it can fail
	}
	if s.cors != nil {
		if cors.IsPreflight(r) {
			if !s.cors.Preflight(w.Header(), r) {
				return writeAdminProblem(w, http.StatusForbidden, cors.ErrOrigin.Error())
			}
			w.WriteHeader(http.StatusNoContent)
			return nil
		}
		s.cors.Apply(w.Header(), r)
	}
	token, refusal := s.authenticate(app, r)
	if refusal != nil {
		limitRest(w, r)
		return refusal.write(w)
	}
	if need := api.RequiredRole(r); !allows(token.Role, need) {
		limitRest(w, r)
		return writeAdminProblem(w, http.StatusForbidden,
			fmt.Sprintf("the token's role is %s, and this takes the role %s", token.Role, need))
	}
	app.gateway.Credentials.TokenUsed(token.ID)
	by := store.Author{Actor: "token:" + token.Name, Source: clientIP(r)}
	app.api.ServeHTTP(w, r.WithContext(api.WithAuthor(r.Context(), by)))
	return nil
}

// adminRefusal is an answer to a request that carries no good token.
type adminRefusal struct {
	status     int
	detail     string
	challenge  string
	retryAfter time.Duration
}

func (a *adminRefusal) write(w http.ResponseWriter) error {
	if a.challenge != "" {
		w.Header().Set("WWW-Authenticate", a.challenge)
	}
	if a.retryAfter > 0 {
		ratelimit.SetRetryAfter(w.Header(), a.retryAfter)
	}
	return writeAdminProblem(w, a.status, a.detail)
}

const adminRealm = `Bearer realm="isekai admin"`

// authenticate returns the token of a request, or how to refuse it.
func (s *AdminSite) authenticate(app *App, r *http.Request) (*store.AdminToken, *adminRefusal) {
	client := []ratelimit.Charge{{Rule: guesses, Scope: guessScope, Key: ratelimit.ClientKey(clientIP(r))}}
	limiter := app.gateway.Guesses
	var space [1]ratelimit.Decision
	if d, err := limiter.Peek(r.Context(), space[:0], client); err == nil && d[0].Remaining == 0 {
		return nil, &adminRefusal{status: http.StatusTooManyRequests, detail: "too many wrong tokens", retryAfter: d[0].Reset}
	}
	scheme, text, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") || len(r.Header["Authorization"]) != 1 {
		return nil, &adminRefusal{status: http.StatusUnauthorized, detail: "send a token as Authorization: Bearer ist_...", challenge: adminRealm}
	}
	token, err := app.findToken(r, strings.TrimLeft(text, " "))
	switch {
	case errors.Is(err, gateway.ErrStoreDown):
		s.logger.Warn("a token could not be looked up", zap.Error(err))
		return nil, &adminRefusal{status: http.StatusServiceUnavailable, detail: "the token can't be looked up now", retryAfter: 5 * time.Second}
	case err != nil:
		client[0].Cost = 1
		_, _, _ = limiter.Take(r.Context(), space[:0], client) // never fails
		return nil, &adminRefusal{status: http.StatusUnauthorized, detail: "the token is not valid", challenge: adminRealm + `, error="invalid_token"`}
	}
	return token, nil
}

// findToken returns the token that a text is, or store.ErrNotFound, or gateway.ErrStoreDown.
func (a *App) findToken(r *http.Request, text string) (*store.AdminToken, error) {
	secret, ok := auth.ParseSecret(auth.PrefixToken, text)
	if !ok {
		return nil, store.ErrNotFound
	}
	token, err := a.gateway.Credentials.Token(r.Context(), secret.ID)
	if err != nil {
		return nil, err
	}
	if !secret.Matches(token.Hash) || token.ExpiresAt != nil && !time.Now().Before(*token.ExpiresAt) {
		return nil, store.ErrNotFound
	}
	return token, nil
}

// allows reports whether who has a role may do what takes another.
func allows(has, need store.Role) bool {
	rank := map[store.Role]int{store.RoleRead: 1, store.RoleWrite: 2, store.RoleAdmin: 3}
	return rank[has] >= rank[need] && rank[need] > 0
}

// clientIP is the client's address as Caddy has found it by trusted_proxies.
func clientIP(r *http.Request) string {
	ip, _ := caddyhttp.GetVar(r.Context(), caddyhttp.ClientIPVarKey).(string)
	return ip
}

func writeAdminProblem(w http.ResponseWriter, status int, detail string) error {
	return writeJSON(w, "application/problem+json", status, problem{Title: http.StatusText(status), Status: status, Detail: detail})
}

func parseAdminSite(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	site := new(AdminSite)
	return site, site.UnmarshalCaddyfile(h.Dispenser)
}

// UnmarshalCaddyfile sets up the handler from Caddyfile tokens. Syntax:
//
//	isekai_admin [<matcher>] {
//		origins <origins...>
//	}
func (s *AdminSite) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	if d.NextArg() {
		return d.ArgErr()
	}
	if err := block(d, map[string]func() error{"origins": list(d, &s.Origins)}); err != nil {
		return err
	}
	for i, origin := range s.Origins {
		if origin == "*" || origin == "null" {
			return d.Errf("origins: %s would let any page use the API (number %s)", origin, strconv.Itoa(i+1))
		}
	}
	return nil
}

// Interface guards
var (
	_ caddy.Provisioner           = (*AdminSite)(nil)
	_ caddyhttp.MiddlewareHandler = (*AdminSite)(nil)
	_ caddyfile.Unmarshaler       = (*AdminSite)(nil)
)
