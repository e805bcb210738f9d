package pipeline

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.opentelemetry.io/otel/attribute"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/isekai-gateway/isekai/quota"
	"github.com/isekai-gateway/isekai/ratelimit"
	"github.com/isekai-gateway/isekai/store"
)

// limiter is what the rate limits of all routes of a configuration have in common.
type limiter struct {
	backend ratelimit.Backend
	style   ratelimit.HeaderStyle
	tally   *ratelimit.Tally
	logger  *zap.Logger
	reports *zap.Logger // of limits that only report
}

func newLimiter(o Options, logger *zap.Logger) *limiter {
	return &limiter{
		backend: o.Limits, style: o.LimitHeaders, tally: o.Decisions, logger: logger,
		// They come in floods as well, and at the default level.
		reports: logger.WithOptions(zap.WrapCore(func(core zapcore.Core) zapcore.Core {
			return zapcore.NewSamplerWithOptions(core, 10*time.Second, 10, 1000)
		})),
	}
}

// limit is a route's rate limits.
type limit struct {
	*quota.Policy
	rules   []ratelimit.Rule // those of the policy
	style   ratelimit.HeaderStyle
	headers *ratelimit.Headers // for the rules
}

// newLimit returns the rate limits of a route, nil if it has none.
func (l *limiter) newLimit(row *store.Route) *limit {
	policy := quota.Of(row)
	if policy == nil {
		return nil
	}
	own := &limit{Policy: policy, style: l.style}
	if policy.Headers != "" {
		own.style = policy.Headers
	}
	for _, rule := range policy.Rules {
		own.rules = append(own.rules, rule.Rule)
	}
	own.headers = ratelimit.NewHeaders(own.style, own.rules)
	return own
}

// appendCharges appends what the request is to be charged.
func (l *limit) appendCharges(charges []ratelimit.Charge, x *Exchange, r *http.Request) []ratelimit.Charge {
	caller, key := x.Caller(), ""
	for i := range l.Rules {
		rule := &l.Rules[i]
		if i == 0 || rule.Key != l.Rules[i-1].Key {
			key = rule.Key.Of(r, caller)
		}
		charges = append(charges, ratelimit.Charge{Rule: rule.Rule, Scope: l.Scope, Key: key, Cost: rule.Cost})
	}
	return charges
}

// verdict is what an exchange's rate limits say.
type verdict struct {
	headers   *ratelimit.Headers
	decisions []ratelimit.Decision
	charges   []ratelimit.Charge

	// Where those of most routes are, so that they need no memory of their own.
	decided [2]ratelimit.Decision
	charged [2]ratelimit.Charge
}

func (v *verdict) writeTo(h http.Header) { v.headers.Write(h, v.decisions) }

// admit charges the request to the limit of who makes it and to those of the route,
// in one step, and has the answer tell what is left. It returns an error that
// matches ratelimit.ErrLimited if the request is over one of them, and nothing is
// charged then; or ratelimit.ErrUnavailable.
func (p *Pipeline) admit(x *Exchange, w *writer, r *http.Request) (err error) {
	route := p.limit
	if route == nil && x.consumer == nil {
		return nil
	}
	if x.Span != nil {
		span := step(r, "limit")
		defer func() { endStep(span, err, attribute.String("isekai.limited", x.limited)) }()
	}
	v := new(verdict)
	v.charges = v.charged[:0]
	enforced := route
	if route != nil && route.DryRun {
		enforced = nil
	}
	if x.consumer != nil {
		v.charges = append(v.charges, *x.consumer)
	}
	if enforced != nil {
		v.charges = enforced.appendCharges(v.charges, x, r)
	}
	if len(v.charges) > 0 {
		if err := p.limits.enforce(v, enforced, x, w, r); err != nil {
			return err
		}
	}
	if route == enforced || !p.limits.rehearse(route, x, r) {
		p.limits.tally.Allowed()
	}
	return nil
}

// enforce charges what v asks for or refuses the request. own is the route's part of
// it, nil for none.
func (l *limiter) enforce(v *verdict, own *limit, x *Exchange, w *writer, r *http.Request) error {
	var (
		allowed bool
		err     error
	)
	v.decisions, allowed, err = l.backend.Take(r.Context(), v.decided[:0], v.charges)
	if err != nil {
		w.Header().Set("Retry-After", "1")
		return caddyhttp.Error(http.StatusServiceUnavailable, fmt.Errorf("%w: %w", ratelimit.ErrUnavailable, err))
	}
	switch {
	case own == nil:
		v.headers = ratelimit.NewHeaders(l.style, rulesOf(v.charges))
	case x.consumer != nil:
		v.headers = ratelimit.NewHeaders(own.style, rulesOf(v.charges))
	default:
		v.headers = own.headers
	}
	if allowed {
		w.limits = v
		return nil
	}
	limited := l.report(x, rulesOf(v.charges), v.decisions, false)
	l.tally.Limited()
	v.writeTo(w.Header())
	ratelimit.SetRetryAfter(w.Header(), limited.RetryAfter)
	return caddyhttp.Error(http.StatusTooManyRequests, limited)
}

// rehearse charges the request to the limits of a route that only reports, and says
// whether it is over one of them. It refuses nothing, so it goes on without an answer
// of the backend.
func (l *limiter) rehearse(own *limit, x *Exchange, r *http.Request) (over bool) {
	decisions, allowed, err := l.backend.Take(r.Context(), nil, own.appendCharges(nil, x, r))
	if err != nil || allowed {
		return false
	}
	_ = l.report(x, own.rules, decisions, true) // nobody is refused
	l.tally.DryRun()
	return true
}

// report tells logs and placeholders of a request that is over a limit. Refused ones
// come in floods and have an answer that tells of them, so that they are for
// debugging only.
func (l *limiter) report(x *Exchange, rules []ratelimit.Rule, decisions []ratelimit.Decision, dryRun bool) *ratelimit.LimitedError {
	limited := ratelimit.NewLimitedError(rules, decisions)
	x.limited = strings.Join(limited.Policies, ",")
	level, logger := zapcore.DebugLevel, l.logger
	if dryRun {
		level, logger = zapcore.InfoLevel, l.reports
	}
	if entry := logger.Check(level, "rate limit exceeded"); entry != nil {
		entry.Write(
			zap.Int64("route", x.route.ID),
			zap.Strings("policies", limited.Policies),
			zap.Duration("retry_after", limited.RetryAfter),
			zap.Bool("dry_run", dryRun),
			zap.String("request_id", x.RequestID),
		)
	}
	return limited
}

func rulesOf(charges []ratelimit.Charge) []ratelimit.Rule {
	rules := make([]ratelimit.Rule, len(charges))
	for i, c := range charges {
		rules[i] = c.Rule
	}
	return rules
}
