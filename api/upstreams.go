package api

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/isekai-gateway/isekai/proxy"
)

// Types that describe the proxy's own, as in status.go.
type (
	pool struct {
		ID            string         `json:"id" doc:"A name that stays the same as long as the pool's settings do."`
		Routes        []poolRoute    `json:"routes" doc:"The routes that share the pool, by id."`
		Policy        string         `json:"policy" doc:"How a target is chosen."`
		Requests      uint64         `json:"requests" doc:"Requests since the pool was made, however often they were tried."`
		Retries       uint64         `json:"retries" doc:"Further tries of requests."`
		FastLane      uint64         `json:"fast_lane" doc:"Tries that the gateway's own client made, rather than Caddy's reverse_proxy."`
		RetriesDenied uint64         `json:"retries_denied" doc:"Further tries that the retry budget did not allow."`
		Targets       []targetStatus `json:"targets" doc:"The targets, in the order of the settings."`
	}
	poolRoute struct {
		ID   int64  `json:"id" doc:"The route's number."`
		Name string `json:"name,omitempty" doc:"The route's name."`
	}
	targetStatus struct {
		URL            string     `json:"url" doc:"Scheme, host and port."`
		Weight         int        `json:"weight" doc:"The target's share of the requests."`
		State          string     `json:"state" enum:"healthy,unhealthy" doc:"What the health checks say. An unhealthy target gets no requests."`
		Breaker        string     `json:"breaker,omitempty" enum:"closed,open,half-open" doc:"The state of its circuit breaker. Absent if the pool has none."`
		BreakerOpened  uint64     `json:"breaker_opened" doc:"How often its circuit breaker has opened."`
		InFlight       int64      `json:"in_flight" doc:"Requests and streams of the pool that it is busy with."`
		Requests       uint64     `json:"requests" doc:"Tries of requests."`
		Failures       uint64     `json:"failures" doc:"Tries that failed to connect or to answer."`
		RecentFailures int        `json:"recent_failures" doc:"Failures that count for its passive health now."`
		Changes        uint64     `json:"changes" doc:"How often its state has changed, or its circuit breaker opened and closed."`
		LastCheck      *time.Time `json:"last_check,omitempty" doc:"When it was last asked for its health."`
		LastFailure    *time.Time `json:"last_failure,omitempty" doc:"When a try last failed."`
	}
	poolPage struct {
		Items []pool `json:"items" doc:"The pools, by the lowest id of their routes."`
		Next  string `json:"next,omitempty" doc:"The cursor of the next page. Absent at the end."`
	}
)

type (
	upstreamsInput struct {
		Limit  int    `query:"limit" minimum:"1" maximum:"1000" default:"100" doc:"The most pools in one answer."`
		Cursor string `query:"cursor" doc:"Where to go on: \"next\" of the answer before."`
		Route  int64  `query:"route" minimum:"1" maximum:"2147483647" doc:"Only the pool of the route with this number."`
	}
	upstreamsOutput struct {
		Body poolPage
	}
)

func (s *server) registerUpstreams(api huma.API) {
	register(s, api, huma.Operation{
		OperationID: "list-upstreams", Method: http.MethodGet, Path: "/api/upstreams", Tags: []string{"status"},
		Summary: "Show the pools of targets",
		Description: "Shows the pools that are in use on this node, and the state of their targets. Routes with equal upstream settings share a pool. " +
			"A pool is made by the first request, or at once if its targets are actively asked for their health.",
		Errors: []int{400, 422},
	}, s.upstreams)
}

func (s *server) upstreams(_ context.Context, in *upstreamsInput) (*upstreamsOutput, error) {
	after, ok := parseCursor(in.Cursor)
	if !ok {
		return nil, badCursor()
	}
	page := poolPage{Items: []pool{}}
	if s.cfg.Upstreams == nil {
		return &upstreamsOutput{Body: page}, nil
	}
	for _, status := range s.cfg.Upstreams() {
		first := status.Routes[0].ID
		of := func(r proxy.PoolRoute) bool { return r.ID == in.Route }
		if first <= after || in.Route != 0 && !slices.ContainsFunc(status.Routes, of) {
			continue
		}
		if len(page.Items) == in.Limit {
			page.Next = cursor(page.Items[in.Limit-1].Routes[0].ID)
			break
		}
		page.Items = append(page.Items, newPool(status))
	}
	return &upstreamsOutput{Body: page}, nil
}

func newPool(p proxy.PoolStatus) pool {
	out := pool{ID: p.ID, Policy: p.Policy, Requests: p.Requests, Retries: p.Retries, FastLane: p.FastLane, RetriesDenied: p.RetriesDenied}
	for _, r := range p.Routes {
		out.Routes = append(out.Routes, poolRoute(r))
	}
	for _, t := range p.Targets {
		out.Targets = append(out.Targets, targetStatus(t))
	}
	return out
}
