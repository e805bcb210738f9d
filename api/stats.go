package api

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/isekai-gateway/isekai/gateway"
	"github.com/isekai-gateway/isekai/routing"
	"github.com/isekai-gateway/isekai/stats"
)

type (
	windowStats struct {
		Seconds      float64 `json:"seconds" doc:"How long the window really is. It is made of whole parts, so up to one longer than its name says (10 seconds of 1m, a minute of 5m, 5 minutes of 1h, an hour of 24h), and shorter while nothing older is known."`
		Requests     uint64  `json:"requests" doc:"Requests that were answered."`
		Rate         float64 `json:"rate" doc:"Requests per second."`
		ClientErrors uint64  `json:"client_errors" doc:"Of these, answered 4xx, or left by the client (499)."`
		ServerErrors uint64  `json:"server_errors" doc:"Of these, answered 5xx, or broken off."`
		BytesIn      uint64  `json:"bytes_in" doc:"Bytes of requests' bodies that were read."`
		BytesOut     uint64  `json:"bytes_out" doc:"Bytes of answers' bodies."`
		MeanMS       float64 `json:"mean_ms" doc:"How many milliseconds a request took on average."`
		P50          float64 `json:"p50_ms" doc:"The median of milliseconds. Like the next two it is within 9 %."`
		P90          float64 `json:"p90_ms" doc:"The milliseconds that nine of ten requests did not exceed."`
		P99          float64 `json:"p99_ms" doc:"The milliseconds that 99 of 100 requests did not exceed."`
	}
	windows struct {
		Minute      windowStats `json:"1m" doc:"The last minute."`
		FiveMinutes windowStats `json:"5m" doc:"The last five minutes."`
		Hour        windowStats `json:"1h" doc:"The last hour."`
		Day         windowStats `json:"24h" doc:"The last day."`
	}
	routeStats struct {
		Route   int64      `json:"route" doc:"The route's number."`
		Name    string     `json:"name,omitempty" doc:"Its name."`
		Host    string     `json:"host,omitempty" doc:"Its host."`
		Path    string     `json:"path" doc:"Its path pattern."`
		LastHit *time.Time `json:"last_hit,omitempty" doc:"When it was last asked for. Absent if it never was."`
		Windows *windows   `json:"windows,omitempty" doc:"What was counted. Absent if there was nothing within a day."`
	}
	statsPage struct {
		Total     windows      `json:"total" doc:"All requests."`
		Unmatched windows      `json:"unmatched" doc:"Of these, the requests that no route matched."`
		Other     windows      `json:"other" doc:"Of these, the requests of routes that are not counted apart, since there are more than max_series."`
		Routes    int          `json:"routes" doc:"How many routes there are."`
		NeverHit  int          `json:"never_hit" doc:"How many of them were never asked for."`
		Items     []routeStats `json:"items" doc:"The routes, the busiest first, by the requests in the window asked for and then by last hit."`
		Next      string       `json:"next,omitempty" doc:"The cursor of the next page. Absent at the end."`
	}
)

type (
	statsInput struct {
		Limit    int          `query:"limit" minimum:"1" maximum:"1000" default:"100" doc:"The most routes in one answer."`
		Cursor   string       `query:"cursor" doc:"Where to go on: \"next\" of the answer before. The order may have changed since."`
		Route    int64        `query:"route" minimum:"1" maximum:"2147483647" doc:"Only the route with this number."`
		NeverHit optionalBool `query:"never_hit" doc:"Only routes that were never asked for, or only those that were."`
		Window   string       `query:"window" enum:"1m,5m,1h,24h" default:"1h" doc:"The window whose requests the order goes by."`
		Node     bool         `query:"node" doc:"Whether to count only what this node has answered since it was started. By default all nodes are counted; the minutes of others come up to a minute and a half late."`
	}
	statsOutput struct{ Body statsPage }
)

func (s *server) registerStats(api huma.API) {
	register(s, api, huma.Operation{
		OperationID: "get-stats", Method: http.MethodGet, Path: "/api/stats", Tags: []string{"logs"},
		Summary: "Show what was counted",
		Description: "Shows requests, errors, bytes and durations over the last minute to the last day, of all requests and by route, and which routes were never asked for. " +
			"It answers from memory. Sampling of the request log has no part in it.",
		Errors: []int{400, 422, 503},
	}, s.stats)
}

func (s *server) stats(_ context.Context, in *statsInput) (*statsOutput, error) {
	from, ok := parseCursor(in.Cursor)
	if !ok {
		return nil, badCursor()
	}
	table := s.cfg.Gateway.Table()
	if table == nil {
		return nil, gateway.ErrNotReady
	}
	traffic := s.cfg.Gateway.Traffic
	reports := traffic.Reports(!in.Node)
	page := statsPage{
		Total:     newWindows(reports, func(r stats.Report) stats.Tally { return r.Total() }),
		Unmatched: newWindows(reports, tallyOf(stats.None)),
		Other:     newWindows(reports, tallyOf(stats.Other)),
		Routes:    table.Len(),
		Items:     []routeStats{},
	}
	by := reports[slices.IndexFunc(stats.Windows, func(w stats.Window) bool { return w.Name == in.Window })]
	var rows []countedRoute
	for route := range table.Routes() {
		counted := countedRoute{Route: route, lastHit: traffic.LastHit(route.ID)}
		if t := by.Routes[route.ID]; t != nil {
			counted.requests = t.Requests
		}
		never := counted.lastHit.IsZero()
		if never {
			page.NeverHit++
		}
		if (in.Route == 0 || in.Route == route.ID) && (!in.NeverHit.IsSet || in.NeverHit.Value == never) {
			rows = append(rows, counted)
		}
	}
	slices.SortFunc(rows, countedRoute.compare)
	rows = rows[min(int(from), len(rows)):]
	if len(rows) > in.Limit {
		rows = rows[:in.Limit]
		page.Next = cursor(from + int64(in.Limit))
	}
	for _, row := range rows {
		page.Items = append(page.Items, row.stats(reports))
	}
	return &statsOutput{Body: page}, nil
}

// countedRoute is a route and what the list is sorted by.
type countedRoute struct {
	*routing.Route
	requests uint64
	lastHit  time.Time
}

func (a countedRoute) compare(b countedRoute) int {
	return cmp.Or(cmp.Compare(b.requests, a.requests), b.lastHit.Compare(a.lastHit), cmp.Compare(a.ID, b.ID))
}

func (a countedRoute) stats(reports []stats.Report) routeStats {
	row := a.Row()
	out := routeStats{Route: row.ID, Name: row.Name, Host: row.Host, Path: row.Path}
	if !a.lastHit.IsZero() {
		out.LastHit = &a.lastHit
	}
	if slices.ContainsFunc(reports, func(r stats.Report) bool { return r.Routes[a.ID] != nil }) {
		w := newWindows(reports, tallyOf(a.ID))
		out.Windows = &w
	}
	return out
}

// tallyOf returns what picks a route's tally from a report.
func tallyOf(id int64) func(stats.Report) stats.Tally {
	return func(r stats.Report) stats.Tally {
		if t := r.Routes[id]; t != nil {
			return *t
		}
		return stats.Tally{}
	}
}

func newWindows(reports []stats.Report, tally func(stats.Report) stats.Tally) windows {
	one := func(i int) windowStats {
		t, span := tally(reports[i]), reports[i].Span.Seconds()
		w := windowStats{
			Seconds: span, Requests: t.Requests, ClientErrors: t.ClientErrors, ServerErrors: t.ServerErrors,
			BytesIn: t.BytesIn, BytesOut: t.BytesOut,
			P50: milliseconds(t.Quantile(.5)), P90: milliseconds(t.Quantile(.9)), P99: milliseconds(t.Quantile(.99)),
		}
		if t.Requests > 0 {
			w.MeanMS = milliseconds(t.Took / time.Duration(t.Requests))
		}
		if span > 0 {
			w.Rate, _ = strconv.ParseFloat(strconv.FormatFloat(float64(t.Requests)/span, 'g', 4, 64), 64)
		}
		return w
	}
	return windows{one(0), one(1), one(2), one(3)}
}

// milliseconds returns a duration as a number that is short and exact to the
// microsecond.
func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
