package proxy

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/isekai-gateway/isekai/store"
)

// Bounds of store.Upstream.
const (
	MaxTargets     = 128
	MaxWeight      = 1000
	MaxRetries     = 10
	MaxReplayBytes = 1 << 20 // of a body, per request in flight
	MaxSeconds     = store.MaxTimeout
	MaxCount       = 1_000_000 // of failures, checks, requests
	maxMethods     = 16
	maxStatuses    = 64
	maxCheckFields = 32
	maxCheckText   = 16 << 10
)

// validatePool checks what a route says of its pool of targets.
func validatePool(errs *store.FieldErrors, t *Target, u *store.Upstream, policy *Policy) {
	validateTargets(errs, t, u, policy)
	validatePolicy(errs, u)
	if u.Retries != nil && (*u.Retries < 0 || *u.Retries > MaxRetries) {
		errs.Add("upstream.retries", fmt.Sprintf("must be between 0 (never) and %d", MaxRetries))
	}
	if u.Retry != nil {
		validateRetry(errs, u.Retry)
	}
	if u.Health != nil {
		validateHealth(errs, u.Health)
	}
	if u.CircuitBreaker != nil {
		validateBreaker(errs, "upstream.circuit_breaker.", u.CircuitBreaker)
	}
	if o := u.Timeouts; o != nil {
		validateSeconds(errs, "upstream.timeouts.connect", o.Connect)
		validateSeconds(errs, "upstream.timeouts.response_header", o.ResponseHeader)
		validateSeconds(errs, "upstream.timeouts.idle", o.Idle)
	}
}

func validateTargets(errs *store.FieldErrors, t *Target, u *store.Upstream, policy *Policy) {
	if len(u.Targets) > MaxTargets {
		errs.Add("upstream.targets", fmt.Sprintf("must be at most %d", MaxTargets))
		return
	}
	seen, weight := make(map[string]int), 0
	for i, member := range u.Targets {
		field := fmt.Sprintf("upstream.targets[%d]", i)
		parsed, err := ParseTarget(member.URL, nil)
		switch {
		case err != nil:
			errs.Add(field+".url", err.Error())
		case parsed.Scheme != t.Scheme || parsed.H2C != t.H2C:
			errs.Add(field+".url", "must have the scheme of target_url")
		case parsed.base != "" || parsed.rewrite != nil:
			errs.Add(field+".url", "must have no path: that of target_url is used for all targets")
		default:
			if err := policy.CheckTarget(parsed); err != nil {
				errs.Add(field+".url", err.Error())
			}
			if other, ok := seen[parsed.Address]; ok {
				errs.Add(field+".url", fmt.Sprintf("is the same as upstream.targets[%d]: give one of them more weight", other))
			}
			seen[parsed.Address] = i
		}
		if member.Weight == nil {
			weight++
		} else if weight += *member.Weight; *member.Weight < 0 || *member.Weight > MaxWeight {
			errs.Add(field+".weight", fmt.Sprintf("must be between 0 and %d", MaxWeight))
		}
		if member.MaxRequests < 0 || member.MaxRequests > MaxCount {
			errs.Add(field+".max_requests", fmt.Sprintf("must be between 0 (no bound) and %d", MaxCount))
		}
	}
	if len(u.Targets) > 0 && weight == 0 {
		errs.Add("upstream.targets", "must have a weight above 0 somewhere")
	}
}

func validatePolicy(errs *store.FieldErrors, u *store.Upstream) {
	policy := u.Policy
	if policy == "" {
		policy = policyRoundRobin
	}
	if !slices.Contains(Policies, policy) {
		errs.Add("upstream.policy", "must be one of "+strings.Join(Policies, ", "))
		return
	}
	weighted := false
	for _, member := range u.Targets {
		weighted = weighted || weightOf(member) != weightOf(u.Targets[0])
	}
	if weighted && !canWeigh(policy) {
		errs.Add("upstream.policy", fmt.Sprintf("%q can't share requests out by weight: leave the weights out or take another policy", policy))
	}
	if len(u.PolicyOptions) == 0 && policy != policyHeader && policy != policyQuery {
		return
	}
	options := checkPolicy(errs, policy, "upstream.policy_options", u.PolicyOptions, 0)
	if weighted && options.Fallback != nil {
		errs.Add("upstream.policy_options.fallback", "has no effect with weights: requests without a key are then shared out by weight")
	}
}

func weightOf(t store.UpstreamTarget) int {
	if t.Weight == nil {
		return 1
	}
	return *t.Weight
}

func validateRetry(errs *store.FieldErrors, r *store.Retry) {
	if len(r.Methods) > maxMethods {
		errs.Add("upstream.retry.methods", fmt.Sprintf("must be at most %d", maxMethods))
	}
	for i, method := range r.Methods {
		if method != strings.ToUpper(method) || !httpguts.ValidHeaderFieldName(method) {
			errs.Add(fmt.Sprintf("upstream.retry.methods[%d]", i), "must be a method in upper case")
		}
	}
	validateStatuses(errs, "upstream.retry.statuses", r.Statuses, 400)
	if r.BodyMax < 0 || r.BodyMax > MaxReplayBytes {
		errs.Add("upstream.retry.body_max", fmt.Sprintf("must be between 1 and %d bytes", MaxReplayBytes))
	}
	validateSeconds(errs, "upstream.retry.backoff", r.Backoff)
	if p := r.BudgetPercent; p != nil && !(*p >= 0 && *p <= 100) {
		errs.Add("upstream.retry.budget_percent", "must be between 0 and 100")
	}
	if m := r.BudgetMin; m != nil && !(*m >= 0 && *m <= 1000) {
		errs.Add("upstream.retry.budget_min", "must be between 0 and 1000 a second")
	}
}

// validateStatuses checks a list of statuses; least is the lowest, and digits that
// stand for a class are allowed if it is below 100.
func validateStatuses(errs *store.FieldErrors, field string, statuses []int, least int) {
	if len(statuses) > maxStatuses {
		errs.Add(field, fmt.Sprintf("must be at most %d", maxStatuses))
	}
	for i, status := range statuses {
		switch {
		case status >= max(least, 100) && status <= 599:
		case least < 100 && status >= 1 && status <= 5:
		case least < 100:
			errs.Add(fmt.Sprintf("%s[%d]", field, i), "must be a status such as 503, or the first digit of several, as 5")
		default:
			errs.Add(fmt.Sprintf("%s[%d]", field, i), fmt.Sprintf("must be a status between %d and 599", least))
		}
	}
}

func validateSeconds(errs *store.FieldErrors, field string, s store.Seconds) {
	if !(s >= 0 && s <= MaxSeconds) {
		errs.Add(field, fmt.Sprintf("must be between 0 and %d seconds", MaxSeconds))
	} else if s > 0 && s < 0.001 {
		errs.Add(field, "must not be shorter than 0.001 seconds")
	}
}

func validateCount(errs *store.FieldErrors, field string, n int) {
	if n < 0 || n > MaxCount {
		errs.Add(field, fmt.Sprintf("must be between 1 and %d", MaxCount))
	}
}

func validateHealth(errs *store.FieldErrors, h *store.HealthChecks) {
	if a := h.Active; a != nil {
		validateActive(errs, a)
	}
	if p := h.Passive; p != nil {
		const field = "upstream.health.passive"
		validateCount(errs, field+".max_fails", p.MaxFails)
		validateSeconds(errs, field+".fail_duration", p.FailDuration)
		validateSeconds(errs, field+".unhealthy_latency", p.UnhealthyLatency)
		validateStatuses(errs, field+".unhealthy_status", p.UnhealthyStatus, 1)
	}
}

func validateActive(errs *store.FieldErrors, a *store.ActiveHealth) {
	const field = "upstream.health.active"
	if u, err := url.Parse(a.Path); a.Path != "" && (err != nil || u.Host != "" || u.Scheme != "" || u.Fragment != "" || a.Path[0] != '/') {
		errs.Add(field+".path", `must be a path such as "/healthz", with a query if needed`)
	}
	if a.Method != "" && (a.Method != strings.ToUpper(a.Method) || !httpguts.ValidHeaderFieldName(a.Method) || a.Method == http.MethodConnect) {
		errs.Add(field+".method", "must be a method in upper case")
	}
	if a.Host != "" && !httpguts.ValidHostHeader(a.Host) {
		errs.Add(field+".host", "must be a host, with a port if needed")
	}
	if len(a.Headers) > maxCheckFields {
		errs.Add(field+".headers", fmt.Sprintf("must be at most %d", maxCheckFields))
	}
	for _, name := range slices.Sorted(maps.Keys(a.Headers)) {
		value := a.Headers[name]
		switch {
		case !httpguts.ValidHeaderFieldName(name):
			errs.Add(field+".headers."+name, "is no name of a header field")
		case strings.EqualFold(name, "Host"):
			errs.Add(field+".headers."+name, `must be set as "host"`)
		case !httpguts.ValidHeaderFieldValue(value):
			errs.Add(field+".headers."+name, "has a character that a header field can't have")
		}
	}
	for _, t := range []struct{ name, text string }{{"path", a.Path}, {"host", a.Host}, {"body", a.Body}} {
		if len(t.text) > maxCheckText {
			errs.Add(field+"."+t.name, fmt.Sprintf("must be at most %d bytes", maxCheckText))
		}
	}
	validateSeconds(errs, field+".interval", a.Interval)
	validateSeconds(errs, field+".timeout", a.Timeout)
	if s := a.ExpectStatus; s != 0 && (s < 1 || s > 5) && (s < 100 || s > 599) {
		errs.Add(field+".expect_status", "must be a status such as 204, or the first digit of several, as 2")
	}
	if _, err := regexp.Compile(a.ExpectBody); err != nil {
		errs.Add(field+".expect_body", err.Error())
	}
	validateCount(errs, field+".passes", a.Passes)
	validateCount(errs, field+".fails", a.Fails)
}

// validateBreaker checks the settings of a circuit breaker, whose fields begin with
// prefix.
func validateBreaker(errs *store.FieldErrors, prefix string, c *store.CircuitBreaker) {
	if !(c.FailureRatio >= 0 && c.FailureRatio <= 1) {
		errs.Add(prefix+"failure_ratio", "must be above 0 and up to 1")
	}
	validateCount(errs, prefix+"min_requests", c.MinRequests)
	validateCount(errs, prefix+"probes", c.Probes)
	validateSeconds(errs, prefix+"window", c.Window)
	validateSeconds(errs, prefix+"open_for", c.OpenFor)
	validateSeconds(errs, prefix+"slow", c.Slow)
	validateStatuses(errs, prefix+"statuses", c.Statuses, 1)
}

// PlaceholderTexts are the texts of a route's pool in which Caddy would replace
// placeholders, by their fields.
func PlaceholderTexts(u *store.Upstream) map[string]string {
	texts := make(map[string]string)
	if u == nil {
		return texts
	}
	if u.Health != nil && u.Health.Active != nil {
		a := u.Health.Active
		texts["upstream.health.active.body"] = a.Body
		for name, value := range a.Headers {
			texts["upstream.health.active.headers."+name] = name + value
		}
	}
	texts["upstream.policy_options"] = unquoted(u.PolicyOptions)
	return texts
}

// unquoted is raw without the escapes that could hide what it says.
func unquoted(raw json.RawMessage) string {
	var v any
	if json.Unmarshal(raw, &v) != nil {
		return ""
	}
	return fmt.Sprint(v)
}
