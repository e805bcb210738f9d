// Package quota is what the limits in a route's row mean: which rules its requests
// are held to and what is counted. Who answers requests and who shows or resets what
// is used take it from here, so that they mean the same counters.
package quota

import (
	"cmp"
	"fmt"
	"strconv"
	"time"

	"github.com/isekai-gateway/isekai/ratelimit"
	"github.com/isekai-gateway/isekai/store"
)

const (
	// RouteRule is the name of the rule that a route's rate_limit is.
	RouteRule = "route"

	// ConsumerRule is the name of the rule that a consumer's own limit is.
	ConsumerRule = "consumer"

	// DefaultWindow is that of limits.window and of the windows of rules.
	DefaultWindow = time.Minute
)

// Policy is a route's rate limits. It must not be changed.
type Policy struct {
	// Scope is what the rules belong to. It holds no revision, so an edited route
	// keeps what was used.
	Scope string

	// Rules is what requests are held to, rate_limit first, at least one.
	Rules []Rule

	// DryRun is whether requests over a rule are only reported.
	DryRun bool

	// Headers is which fields tell clients, empty for the default.
	Headers ratelimit.HeaderStyle
}

// Rule is one of a route's rules.
type Rule struct {
	ratelimit.Rule

	// Key is what is counted apart.
	Key ratelimit.Key

	// Cost is how many units a request costs.
	Cost int
}

// Of returns the rate limits of a route, which Validate has accepted, or nil if it
// has none.
func Of(row *store.Route) *Policy {
	limits := row.Limits
	if limits == nil {
		limits = new(store.Limits)
	}
	if row.RateLimit == 0 && len(limits.Rules) == 0 {
		return nil
	}
	p := &Policy{
		Scope:   "route:" + strconv.FormatInt(row.ID, 10),
		DryRun:  limits.DryRun,
		Headers: ratelimit.HeaderStyle(limits.Headers),
	}
	add := func(r store.LimitRule) {
		p.Rules = append(p.Rules, Rule{
			Rule: ratelimit.Rule{Name: r.Name, Limit: r.Limit, Window: cmp.Or(time.Duration(r.Window)*time.Second, DefaultWindow)},
			Key:  ratelimit.ParseKey(cmp.Or(r.Key, limits.Key)),
			Cost: cmp.Or(r.Cost, limits.Cost, 1),
		})
	}
	if row.RateLimit > 0 {
		add(store.LimitRule{Name: RouteRule, Limit: row.RateLimit, Window: limits.Window})
	}
	for _, r := range limits.Rules {
		add(r)
	}
	return p
}

// OfConsumer returns the charge of one request to a consumer's own limit, which holds
// over all routes together, or nil if it has none. Its scope holds the consumer's
// number, so a consumer that is renamed keeps what was used.
func OfConsumer(c *store.Consumer) *ratelimit.Charge {
	if c.RateLimit <= 0 {
		return nil
	}
	return &ratelimit.Charge{
		Rule: ratelimit.Rule{
			Name: ConsumerRule, Limit: c.RateLimit,
			Window: cmp.Or(time.Duration(c.Window)*time.Second, DefaultWindow),
		},
		Scope: "consumer:" + strconv.FormatInt(c.ID, 10),
		Cost:  1,
	}
}

// Validate adds to errs what is wrong with the rate limits of a route.
func Validate(errs *store.FieldErrors, row *store.Route) {
	checkLimit(errs, "rate_limit", row.RateLimit, 0, " (no limit)")
	limits := row.Limits
	if limits == nil {
		return
	}
	checkWindow(errs, "limits.window", limits.Window)
	checkKey(errs, "limits.key", limits.Key)
	checkCost(errs, "limits.cost", limits.Cost, 0, row.RateLimit)
	if style := ratelimit.HeaderStyle(limits.Headers); style != "" && !style.Valid() {
		errs.Add("limits.headers", "must be ietf, legacy or none")
	}
	if len(limits.Rules) > store.MaxLimitRules {
		errs.Add("limits.rules", fmt.Sprintf("must not have more than %d items", store.MaxLimitRules))
		return
	}
	seen := map[string]bool{RouteRule: true, ConsumerRule: true}
	for i, r := range limits.Rules {
		field := fmt.Sprintf("limits.rules[%d].", i)
		switch {
		case !ratelimit.ValidName(r.Name):
			errs.Add(field+"name", "must be 1 to 64 letters, digits or any of _-.:")
		case seen[r.Name]:
			errs.Add(field+"name", `must be unlike any other of the route, "route" and "consumer"`)
		}
		seen[r.Name] = true
		checkLimit(errs, field+"limit", r.Limit, 1, "")
		checkWindow(errs, field+"window", r.Window)
		checkKey(errs, field+"key", r.Key)
		checkCost(errs, field+"cost", r.Cost, limits.Cost, r.Limit)
	}
}

func checkLimit(errs *store.FieldErrors, field string, limit, least int, means string) {
	if limit < least || limit > ratelimit.MaxLimit {
		errs.Add(field, fmt.Sprintf("must be between %d%s and %d", least, means, ratelimit.MaxLimit))
	}
}

func checkWindow(errs *store.FieldErrors, field string, window int) {
	if most := int(ratelimit.MaxWindow / time.Second); window < 0 || window > most {
		errs.Add(field, fmt.Sprintf("must be between 1 and %d seconds", most))
	}
}

func checkKey(errs *store.FieldErrors, field, key string) {
	if len(key) > ratelimit.MaxKey {
		errs.Add(field, fmt.Sprintf("must be at most %d bytes", ratelimit.MaxKey))
	}
}

// checkCost checks a cost, 0 for the default, under a limit, 0 for none.
func checkCost(errs *store.FieldErrors, field string, cost, byDefault, limit int) {
	switch {
	case cost < 0 || cost > ratelimit.MaxCost:
		errs.Add(field, fmt.Sprintf("must be between 1 and %d", ratelimit.MaxCost))
	case limit > 0 && cmp.Or(cost, byDefault) > limit:
		errs.Add(field, fmt.Sprintf("must be at most the limit, %d, or no request would ever be admitted", limit))
	}
}
