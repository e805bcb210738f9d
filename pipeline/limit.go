package pipeline

import (
	"net/http"
	"strconv"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/isekai-gateway/isekai/ratelimit"
	"github.com/isekai-gateway/isekai/routing"
)

// defaultWindow is that of limits.window.
const defaultWindow = time.Minute

// policyName is how clients see a route's limit in the RateLimit fields.
const policyName = "route"

// limit is a route's rate limit.
type limit struct {
	limits  ratelimit.Backend
	rules   []ratelimit.Rule // exactly one
	headers *ratelimit.Headers
	scope   string
	key     string // text with placeholders; empty: the client's address
}

// newLimit returns the limit of a route that has one.
func newLimit(route *routing.Route, limits ratelimit.Backend, style ratelimit.HeaderStyle) *limit {
	rule := ratelimit.Rule{Name: policyName, Limit: route.RateLimit, Window: defaultWindow}
	l := &limit{
		limits: limits,
		// No revision is part of it, so an edited route keeps what was used.
		scope: "route:" + strconv.FormatInt(route.ID, 10),
	}
	if limits := route.Limits; limits != nil {
		if limits.Window > 0 {
			rule.Window = time.Duration(limits.Window) * time.Second
		}
		if limits.Key != "{client_ip}" && limits.Key != "{http.vars.client_ip}" {
			l.key = limits.Key
		}
	}
	l.rules = []ratelimit.Rule{rule}
	l.headers = ratelimit.NewHeaders(style, l.rules)
	return l
}

// admit charges the request, and has the answer tell what is left. It returns
// an error that matches ratelimit.ErrLimited if there is nothing left, or
// ratelimit.ErrUnavailable if that can't be told.
func (l *limit) admit(w *writer, r *http.Request, repl *caddy.Replacer) error {
	decisions, allowed, err := l.limits.Take(r.Context(), nil, []ratelimit.Charge{{Rule: l.rules[0], Scope: l.scope, Key: l.keyOf(r, repl), Cost: 1}})
	if err != nil {
		ratelimit.SetRetryAfter(w.Header(), time.Second)
		return caddyhttp.Error(http.StatusServiceUnavailable, err)
	}
	if allowed {
		w.onHeader = func(h http.Header) { l.headers.Write(h, decisions) }
		return nil
	}
	l.headers.Write(w.Header(), decisions)
	ratelimit.SetRetryAfter(w.Header(), decisions[0].RetryAfter)
	return caddyhttp.Error(http.StatusTooManyRequests, ratelimit.NewLimitedError(l.rules, decisions))
}

// keyOf returns what the request is counted under.
func (l *limit) keyOf(r *http.Request, repl *caddy.Replacer) string {
	if l.key != "" {
		return repl.ReplaceAll(l.key, "")
	}
	clientIP, _ := caddyhttp.GetVar(r.Context(), caddyhttp.ClientIPVarKey).(string)
	return ratelimit.ClientKey(clientIP)
}
