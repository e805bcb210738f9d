package ratelimit

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

func init() { caddy.RegisterModule(new(Handler)) }

// Handler limits how many requests a key may make in a sliding window. It needs
// neither routes nor the isekai app.
//
// What is used is kept by zone, in memory or on a server that replicas share, and
// outlives config reloads: a zone whose limit is changed keeps its counters. A refused request is charged to no
// rule. It ends in error 429 with Retry-After, for handle_errors to answer.
//
// A zone keeps up to a million keys in memory. Beyond that, keys that are idle or have
// used least make room first, so that a flood of random keys neither grows
// memory nor frees a key that is being limited.
//
// The handler sets this placeholder on requests that are over a limit:
//
// Placeholder | Description
// ------------|-------------
// `{http.isekai_rate_limit.policies}` | The names of the rules that are exceeded, separated by commas
type Handler struct {
	// The name of the zone. Handlers of the same name share their counters, as
	// far as the names and windows of their rules are equal. Up to 64 letters,
	// digits, `_`, `-`, `.` and `:`. Required; the Caddyfile numbers handlers
	// without one in the order in which they appear.
	Name string `json:"name,omitempty"`

	// How many requests a key may make in any window, 1 to 1,000,000,000. The
	// rule has the name of the zone. It can be left out if there are rules.
	Limit int `json:"limit,omitempty"`

	// The length of the window in whole seconds, 1s to 31d. Required with limit.
	Window caddy.Duration `json:"window,omitempty"`

	// Further rules, all of which must admit a request. 8 with the one above.
	Rules []RuleConfig `json:"rules,omitempty"`

	// What is counted by: a text with placeholders. Requests for which it comes
	// out the same share the limit, also if that is the empty text. If it is
	// exactly the client's address, IPv6 clients are counted by their /64.
	// Default: `{http.vars.client_ip}`, which honours trusted_proxies.
	Key string `json:"key,omitempty"`

	// How many units a request costs, 1 to 1,000,000 and at most the limit.
	// Default: 1.
	Cost int `json:"cost,omitempty"`

	// Which response fields tell clients about their limits: `ietf` is
	// RateLimit-Policy and RateLimit (draft-ietf-httpapi-ratelimit-headers-11),
	// `legacy` is X-RateLimit-Limit, -Remaining and -Reset (in seconds from
	// now), `none` is none. Fields of an upstream stay. Default: `ietf`.
	Headers HeaderStyle `json:"headers,omitempty"`

	// Count and log, but refuse nothing and send no fields. Default: false.
	DryRun bool `json:"dry_run,omitempty"`

	SharedConfig

	rules   []Rule
	charges []Charge // one for each rule, but for its key
	keys    []Key    // one for each rule
	headers *Headers
	backend Backend
	pooled  bool         // the zone's reference is held
	release func() error // gives the backend back, if there is one
	logger  *zap.Logger
}

// RuleConfig is one of several rules of a Handler.
type RuleConfig struct {
	// The name of the rule, as clients see it. The same characters as a zone's.
	// Required.
	Name string `json:"name,omitempty"`

	// How many requests a key may make in any window, 1 to 1,000,000,000.
	Limit int `json:"limit,omitempty"`

	// The length of the window in whole seconds, 1s to 31d.
	Window caddy.Duration `json:"window,omitempty"`

	// What is counted by under this rule. Default: the handler's key.
	Key string `json:"key,omitempty"`

	// How many units a request costs under this rule, 1 to 1,000,000 and at most
	// the limit. Default: the handler's cost.
	Cost int `json:"cost,omitempty"`
}

// CaddyModule returns the Caddy module information.
func (*Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.isekai_rate_limit",
		New: func() caddy.Module { return new(Handler) },
	}
}

// Provision takes a reference to the zone's counters.
func (h *Handler) Provision(ctx caddy.Context) error {
	h.logger = ctx.Logger()
	if h.Key == "" {
		h.Key = clientIPKey
	}
	if h.Headers == "" {
		h.Headers = HeadersIETF
	}
	if h.Cost == 0 {
		h.Cost = 1
	}
	if h.Limit != 0 || h.Window != 0 {
		h.addRule(RuleConfig{Name: h.Name, Limit: h.Limit, Window: h.Window})
	}
	for _, r := range h.Rules {
		h.addRule(r)
	}
	h.headers = NewHeaders(h.Headers, h.rules)

	limiter, err := acquireZone(h.Name)
	if err != nil {
		return fmt.Errorf("taking zone %q: %w", h.Name, err)
	}
	h.pooled = true
	if h.backend, h.release, err = h.SharedConfig.Provision(ctx, limiter); err != nil {
		return fmt.Errorf("zone %s: %w", h.Name, err)
	}
	return nil
}

// addRule adds a rule, with the handler's key and cost if it has none itself.
func (h *Handler) addRule(r RuleConfig) {
	rule := Rule{r.Name, r.Limit, time.Duration(r.Window)}
	h.rules = append(h.rules, rule)
	h.charges = append(h.charges, Charge{Rule: rule, Scope: h.Name, Cost: cmp.Or(r.Cost, h.Cost)})
	h.keys = append(h.keys, ParseKey(cmp.Or(r.Key, h.Key)))
}

// Validate checks the ranges that the fields name.
func (h *Handler) Validate() error {
	if !ValidName(h.Name) {
		return fmt.Errorf("name %q: must be 1 to 64 letters, digits or any of _-.:", h.Name)
	}
	if len(h.rules) == 0 {
		return fmt.Errorf("zone %s: no limit and no rules", h.Name)
	}
	if len(h.rules) > MaxRules {
		return fmt.Errorf("zone %s: %d rules are more than %d", h.Name, len(h.rules), MaxRules)
	}
	names := make(map[string]bool)
	for i, r := range h.rules {
		if !ValidName(r.Name) {
			return fmt.Errorf("zone %s: rule name %q: must be 1 to 64 letters, digits or any of _-.:", h.Name, r.Name)
		}
		if names[r.Name] {
			return fmt.Errorf("zone %s: there are two rules named %s", h.Name, r.Name)
		}
		names[r.Name] = true
		if r.Limit < 1 || r.Limit > MaxLimit {
			return fmt.Errorf("zone %s: rule %s: limit %d is not between 1 and %d", h.Name, r.Name, r.Limit, MaxLimit)
		}
		if r.Window < time.Second || r.Window > MaxWindow || r.Window%time.Second != 0 {
			return fmt.Errorf("zone %s: rule %s: window %v is not in whole seconds between 1s and 31d", h.Name, r.Name, r.Window)
		}
		if most, cost := min(r.Limit, MaxCost), h.charges[i].Cost; cost < 1 || cost > most {
			return fmt.Errorf("zone %s: rule %s: cost %d is not between 1 and %d, or no request would ever be admitted", h.Name, r.Name, cost, most)
		}
	}
	if !h.Headers.Valid() {
		return fmt.Errorf("zone %s: headers %q: must be ietf, legacy or none", h.Name, h.Headers)
	}
	return nil
}

// Cleanup gives the zone's counters back. Requests still in flight go on using
// them.
func (h *Handler) Cleanup() error {
	if !h.pooled {
		return nil
	}
	h.pooled = false
	if h.release == nil {
		return releaseZone(h.Name)
	}
	return errors.Join(h.release(), releaseZone(h.Name))
}

// ServeHTTP charges the request, and passes it on if all rules admit it.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	fw := &fieldWriter{headers: h.headers}
	charges := append(fw.charges[:0], h.charges...)
	for i := range charges {
		if i > 0 && h.keys[i] == h.keys[i-1] {
			charges[i].Key = charges[i-1].Key
		} else {
			charges[i].Key = h.keys[i].Of(r, "")
		}
	}
	var allowed bool
	var err error
	fw.decisions, allowed, err = h.backend.Take(r.Context(), fw.space[:0], charges)
	if err != nil {
		if h.DryRun {
			return next.ServeHTTP(w, r)
		}
		SetRetryAfter(w.Header(), time.Second)
		return caddyhttp.Error(http.StatusServiceUnavailable, err)
	}
	if !allowed {
		limited := NewLimitedError(h.rules, fw.decisions)
		h.report(r, limited)
		if !h.DryRun {
			h.headers.Write(w.Header(), fw.decisions)
			SetRetryAfter(w.Header(), limited.RetryAfter)
			return caddyhttp.Error(http.StatusTooManyRequests, limited)
		}
	}
	if h.DryRun || h.Headers == HeadersNone {
		return next.ServeHTTP(w, r)
	}
	fw.ResponseWriter = w
	err = next.ServeHTTP(fw, r)
	fw.writeFields() // for a response without a body, or an error's
	return err
}

// report tells logs and placeholders of a request that is over a limit.
func (h *Handler) report(r *http.Request, limited *LimitedError) {
	repl := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	repl.Set("http.isekai_rate_limit.policies", strings.Join(limited.Policies, ","))
	level := zapcore.DebugLevel
	if h.DryRun {
		level = zapcore.InfoLevel
	}
	if entry := h.logger.Check(level, "rate limit exceeded"); entry != nil {
		entry.Write(
			zap.String("zone", h.Name),
			zap.Strings("policies", limited.Policies),
			zap.Duration("retry_after", limited.RetryAfter),
			zap.Bool("dry_run", h.DryRun),
		)
	}
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddy.Validator             = (*Handler)(nil)
	_ caddy.CleanerUpper          = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
)
