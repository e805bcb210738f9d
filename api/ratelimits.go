package api

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/isekai-gateway/isekai/gateway"
	"github.com/isekai-gateway/isekai/quota"
	"github.com/isekai-gateway/isekai/ratelimit"
	"github.com/isekai-gateway/isekai/store"
)

// maxLimitedRoutes bounds how many routes are looked through for one key.
const maxLimitedRoutes = 1000

// limitsTimeout bounds one operation on counters, which a shared backend may keep
// waiting route by route.
const limitsTimeout = 10 * time.Second

type (
	limitsInput struct {
		Consumer int64 `query:"consumer" minimum:"1" maximum:"2147483647" doc:"In the place of key: the own limit of the consumer with this number, over all routes."`

		Key   string `query:"key" maxLength:"1024" example:"192.0.2.7" doc:"What requests are counted by, as limits.key comes out for them. A client's address may be any of those that are counted together: any IPv6 address of a /64."`
		Route int64  `query:"route" minimum:"1" maximum:"2147483647" doc:"Only the route with this number. Required if more than 1000 routes have rate limits."`
	}
	limitsOutput struct {
		Body limitStates
	}
	limitStates struct {
		Items []limitState `json:"items" doc:"The rules, by the id of their route and in its order. Without the parameter route: those under which something is used."`
	}
	limitState struct {
		Route     int64  `json:"route,omitempty" doc:"The route's number. Absent for a consumer's own limit." example:"7"`
		RouteName string `json:"route_name,omitempty" doc:"The route's name."`
		Rule      string `json:"rule" doc:"The rule's name; \"route\" is the route's rate_limit." example:"route"`
		Limit     int    `json:"limit" doc:"How many units the key may use in any window." example:"100"`
		Window    int64  `json:"window" doc:"The window in seconds." example:"60"`
		Used      int    `json:"used" doc:"How many units of the limit are used." example:"43"`
		Remaining int    `json:"remaining" doc:"How many are left." example:"57"`
		Reset     int64  `json:"reset" doc:"After how many seconds more are left if nothing else is used; 0 if nothing is used." example:"12"`
	}
)

// errManyLimits asks for a route.
var errManyLimits = invalid([]*huma.ErrorDetail{{
	Location: "query.route",
	Message:  fmt.Sprintf("is required, since more than %d routes have rate limits", maxLimitedRoutes),
}})

func (s *server) registerRateLimits(api huma.API) {
	const path = "/api/ratelimits"
	tags := []string{"rate limits"}
	register(s, api, huma.Operation{
		OperationID: "get-rate-limits", Method: http.MethodGet, Path: path, Tags: tags,
		Summary:     "Show what a key has used",
		Description: "Shows, for each rate limit of the routes, how much of it is used under a key.",
		Errors:      []int{400, 404, 422, 503},
	}, s.rateLimits)
	register(s, api, huma.Operation{
		OperationID: "reset-rate-limits", Method: http.MethodDelete, Path: path, Tags: tags,
		Summary:     "Forget what a key has used",
		Description: "Gives a key the whole limit back, under each rule of one route or of all.",
		Errors:      []int{400, 404, 422, 503},
	}, s.resetRateLimits)
}

func (s *server) rateLimits(ctx context.Context, in *limitsInput) (*limitsOutput, error) {
	if in.Consumer != 0 {
		return s.consumerLimit(ctx, in)
	}
	routes, err := s.routesOf(in)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, limitsTimeout)
	defer cancel()
	out := limitsOutput{Body: limitStates{Items: []limitState{}}}
	var decisions []ratelimit.Decision
	for _, r := range routes {
		decisions, err = s.cfg.Limits.Peek(ctx, decisions[:0], r.charges(in.Key))
		if err != nil {
			return nil, fmt.Errorf("reading rate limits: %w: %w", ratelimit.ErrUnavailable, err)
		}
		for i, d := range decisions {
			if used := d.Limit - d.Remaining; used > 0 || in.Route != 0 {
				out.Body.Items = append(out.Body.Items, limitState{
					Route: r.row.ID, RouteName: r.row.Name, Rule: r.Rules[i].Name,
					Limit: d.Limit, Window: int64(r.Rules[i].Window / time.Second),
					Used: used, Remaining: d.Remaining, Reset: wholeSeconds(d.Reset),
				})
			}
		}
	}
	return &out, nil
}

// consumerLimit is rateLimits for a consumer's own limit.
func (s *server) consumerLimit(ctx context.Context, in *limitsInput) (*limitsOutput, error) {
	out := &limitsOutput{Body: limitStates{Items: []limitState{}}}
	charge, err := s.consumerCharge(ctx, in)
	if charge == nil || err != nil {
		return out, err
	}
	decisions, err := s.cfg.Limits.Peek(ctx, nil, []ratelimit.Charge{*charge})
	if err != nil {
		return nil, fmt.Errorf("reading rate limits: %w: %w", ratelimit.ErrUnavailable, err)
	}
	d := decisions[0]
	out.Body.Items = append(out.Body.Items, limitState{
		Rule: charge.Rule.Name, Limit: d.Limit, Window: int64(charge.Rule.Window / time.Second),
		Used: d.Limit - d.Remaining, Remaining: d.Remaining, Reset: wholeSeconds(d.Reset),
	})
	return out, nil
}

// consumerCharge returns a consumer's own limit, nil if it has none.
func (s *server) consumerCharge(ctx context.Context, in *limitsInput) (*ratelimit.Charge, error) {
	if in.Key != "" || in.Route != 0 {
		return nil, invalid([]*huma.ErrorDetail{{Location: "query.consumer", Message: "can't be had with key or route"}})
	}
	row, err := s.cfg.Gateway.Consumer(ctx, in.Consumer)
	if err != nil {
		return nil, noSuch("consumer", err)
	}
	return quota.OfConsumer(row), nil
}

func (s *server) resetRateLimits(ctx context.Context, in *limitsInput) (*struct{}, error) {
	if in.Consumer != 0 {
		charge, err := s.consumerCharge(ctx, in)
		if charge == nil || err != nil {
			return nil, err
		}
		if err := s.cfg.Limits.Reset(ctx, []ratelimit.Charge{*charge}); err != nil {
			return nil, fmt.Errorf("resetting rate limits: %w: %w", ratelimit.ErrUnavailable, err)
		}
		return nil, nil
	}
	routes, err := s.routesOf(in)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, limitsTimeout)
	defer cancel()
	for _, r := range routes {
		if err := s.cfg.Limits.Reset(ctx, r.charges(in.Key)); err != nil {
			return nil, fmt.Errorf("resetting rate limits: %w: %w", ratelimit.ErrUnavailable, err)
		}
	}
	return nil, nil
}

// limitedRoute is a route with rate limits.
type limitedRoute struct {
	*quota.Policy
	row *store.Route
}

// routesOf returns the routes that a request is about.
func (s *server) routesOf(in *limitsInput) ([]limitedRoute, error) {
	if in.Key == "" {
		return nil, invalid([]*huma.ErrorDetail{{Location: "query.key", Message: "key or consumer is required"}})
	}
	return s.limitedRoutes(in.Route)
}

// limitedRoutes returns the routes that have rate limits, by id, or the one that is
// asked for, if it has. Those that can't be served are left out: nothing is counted
// for them, and their limits may be anything.
func (s *server) limitedRoutes(id int64) ([]limitedRoute, error) {
	if id != 0 {
		row, problem, err := s.cfg.Gateway.Get(id)
		if err != nil {
			return nil, err
		}
		if policy := quota.Of(row); policy != nil && problem == nil && validLimits(row) {
			return []limitedRoute{{policy, row}}, nil
		}
		return nil, nil
	}
	table := s.cfg.Gateway.Table()
	if table == nil {
		return nil, gateway.ErrNotReady
	}
	var routes []limitedRoute
	for row, problem := range table.All() {
		if row.RateLimit == 0 && row.Limits == nil || problem != nil || !validLimits(row) {
			continue
		}
		policy := quota.Of(row)
		if policy == nil {
			continue
		}
		if len(routes) == maxLimitedRoutes {
			return nil, errManyLimits
		}
		routes = append(routes, limitedRoute{policy, row})
	}
	return routes, nil
}

func validLimits(row *store.Route) bool {
	var errs store.FieldErrors
	quota.Validate(&errs, row)
	return len(errs) == 0
}

// charges returns a charge of nothing for each rule, whatever its key is made of.
func (r limitedRoute) charges(key string) []ratelimit.Charge {
	charges := make([]ratelimit.Charge, len(r.Rules))
	for i, rule := range r.Rules {
		charges[i] = ratelimit.Charge{Rule: rule.Rule, Scope: r.Scope, Key: rule.Key.Normal(key)}
	}
	return charges
}

// wholeSeconds rounds up.
func wholeSeconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }
