package api

import (
	"context"
	"net/http"
	"reflect"
	"runtime"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/isekai-gateway/isekai/gateway"
)

// The types below describe the gateway's own: converting one into the other
// compiles only as long as they have the same fields.
type (
	health struct {
		Status   gateway.Status `json:"status" enum:"ok,degraded,not_ready" doc:"ok: routes are served and can be changed. degraded: routes are served, but something needs an operator. not_ready: no routes were ever loaded."`
		Reasons  []string       `json:"reasons,omitempty" doc:"Why the status is not ok."`
		Revision int64          `json:"revision" doc:"The revision of the routes that are served."`
		TableAge float64        `json:"table_age_seconds" doc:"Seconds since the served routes were last known to be current."`
	}
	liveness struct {
		Status gateway.Status `json:"status" enum:"ok" doc:"Always ok."`
	}
	cacheStats struct {
		Size      int    `json:"size" doc:"Entries now, about."`
		Hits      uint64 `json:"hits" doc:"Look-ups that found an entry."`
		Misses    uint64 `json:"misses" doc:"Look-ups that didn't."`
		Evictions uint64 `json:"evictions" doc:"Entries that expired or made room."`
		Failures  uint64 `json:"failures" doc:"Routes that could not be set up."`
	}
	requestStats struct {
		Total    int64 `json:"total" doc:"Requests that reached the gateway's handlers."`
		InFlight int64 `json:"in_flight" doc:"Of these, not answered yet."`
		Refused  int64 `json:"refused" doc:"Answered 4xx."`
		Failed   int64 `json:"failed" doc:"Answered 5xx, or broken off."`
		Shed     int64 `json:"shed" doc:"Of these, refused because max_concurrent or limits.max_concurrent requests were in flight."`
	}
	mirrorStats struct {
		Sent    int64         `json:"sent" doc:"Copies that a mirror has answered, whatever the answer."`
		Failed  int64         `json:"failed" doc:"Copies that could not be delivered or were not answered in time."`
		Waiting int64         `json:"waiting" doc:"Copies that wait to be sent now."`
		Dropped mirrorDropped `json:"dropped" doc:"What was to be copied but was not sent, by reason."`
	}
	mirrorDropped struct {
		QueueFull  int64 `json:"queue_full" doc:"No room, mostly since a mirror is slow or down."`
		TooLarge   int64 `json:"too_large" doc:"The body was longer than body_max."`
		Incomplete int64 `json:"incomplete" doc:"The body was not read to its end: the client broke it off, or the answer came early."`
		Skipped    int64 `json:"skipped" doc:"Upgrades, gRPC, requests with Expect, and copies themselves."`
		Shutdown   int64 `json:"shutdown" doc:"Waiting or being sent when a configuration or the process ended."`
	}
	storeStatus struct {
		Up       bool      `json:"up" doc:"Whether the last contact with the store went well."`
		Since    time.Time `json:"since,omitzero" doc:"Since when it is so. Absent before the first contact."`
		Driver   string    `json:"driver" doc:"postgres or sqlite."`
		MaxConns int       `json:"max_conns" doc:"The most connections."`
		Open     int       `json:"open" doc:"Connections open now."`
		InUse    int       `json:"in_use" doc:"Of these, in use now."`

		Schema      int64 `json:"schema" doc:"The version of the database's schema, 0 before it is known."`
		SchemaKnown int64 `json:"schema_known" doc:"The newest version that this program knows. A newer schema works: it is that of a newer program."`
	}
	requestLogStats struct {
		Queued   int    `json:"queued" doc:"Requests that wait to be written now."`
		Capacity int    `json:"capacity" doc:"Requests that can wait."`
		Written  uint64 `json:"written" doc:"Requests that were written."`
		Dropped  uint64 `json:"dropped" doc:"Requests that found the queue full."`
		Failed   uint64 `json:"failed" doc:"Writes that failed. They are tried again."`
		Failing  bool   `json:"failing" doc:"Whether the last write has failed."`
	}
	routeCounts struct {
		Total  int `json:"total" doc:"All routes."`
		Served int `json:"served" doc:"Of these, enabled and without an error."`
		Broken int `json:"broken" doc:"Of these, not served because of an error."`
	}
	status struct {
		Version   string          `json:"version" doc:"The gateway's version."`
		GoVersion string          `json:"go_version" doc:"The Go version that it was built with." example:"go1.26.8"`
		Status    gateway.Status  `json:"status" enum:"ok,degraded,not_ready" doc:"As in /health."`
		Started   time.Time       `json:"started" doc:"When the gateway was opened. A reload does not change it."`
		Uptime    float64         `json:"uptime_seconds" doc:"Seconds since then."`
		Revision  int64           `json:"revision" doc:"The revision of the routes that are served."`
		Routes    routeCounts     `json:"routes" doc:"The routes that this node knows."`
		Cache     cacheStats      `json:"cache" doc:"The cache of compiled routes, since the gateway was opened."`
		Store     storeStatus     `json:"store" doc:"The route store and its connections."`
		Requests  requestStats    `json:"requests" doc:"Requests since the gateway was opened."`
		Log       requestLogStats `json:"request_log" doc:"The request log of this node since the gateway was opened."`
		Mirror    mirrorStats     `json:"mirror" doc:"Copies of requests for mirrors, of routes and of isekai_mirror handlers, since the gateway was opened."`
	}
)

type (
	healthOutput struct {
		Status int
		Body   health
	}
	statusOutput struct {
		Body status
	}
	liveOutput struct {
		Body liveness
	}
)

func (s *server) registerStatus(api huma.API) {
	tags := []string{"status"}
	notReady := &huma.MediaType{Schema: api.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[health](), true, "")}
	// Unlike the others they take any query: load balancers add some to get past
	// caches, and a health check must not fail for that.
	for _, op := range []struct{ id, path, summary string }{
		{"health", "/health", "Tell whether routes are served"},
		{"health-ready", "/health/ready", "Tell whether requests may be sent here"},
	} {
		huma.Register(api, huma.Operation{
			OperationID: op.id, Method: http.MethodGet, Path: op.path, Tags: tags,
			Summary:     op.summary,
			Description: "200 means that routes are served, if need be from memory; 503 that they are not loaded yet. It does not ask the store.",
			Errors:      []int{500},
			Responses: map[string]*huma.Response{"503": {
				Description: "No routes were ever loaded",
				Content:     map[string]*huma.MediaType{mediaJSON: notReady},
			}},
		}, s.health)
	}
	huma.Register(api, huma.Operation{
		OperationID: "health-live", Method: http.MethodGet, Path: "/health/live", Tags: tags,
		Summary:     "Tell whether the process answers",
		Description: "Always 200. A supervisor that restarts the process when this fails does not do so for an outage of the store, which a restart would make worse.",
		Errors:      []int{500},
	}, func(context.Context, *struct{}) (*liveOutput, error) {
		return &liveOutput{Body: liveness{Status: gateway.StatusOK}}, nil
	})
	register(s, api, huma.Operation{
		OperationID: "status", Method: http.MethodGet, Path: "/api/status", Tags: tags,
		Summary: "Show the gateway's state and counters",
		Errors:  []int{400, 422},
	}, s.status)
}

func (s *server) health(context.Context, *struct{}) (*healthOutput, error) {
	out := &healthOutput{Status: http.StatusOK, Body: health(s.cfg.Gateway.Health())}
	if out.Body.Status == gateway.StatusNotReady {
		out.Status = http.StatusServiceUnavailable
	}
	return out, nil
}

func (s *server) status(context.Context, *struct{}) (*statusOutput, error) {
	g := s.cfg.Gateway
	st, h, copies := g.StoreStatus(), g.Health(), g.MirrorStats()
	body := status{
		Version:   s.cfg.Version,
		GoVersion: runtime.Version(),
		Status:    h.Status,
		Started:   g.Started().UTC(),
		Uptime:    time.Since(g.Started()).Seconds(),
		Revision:  h.Revision,
		Cache:     cacheStats(g.CacheStats()),
		Store: storeStatus{
			Up: st.Up, Since: st.Since,
			Driver: st.Driver, MaxConns: st.MaxConns, Open: st.Open, InUse: st.InUse,
			Schema: st.Schema, SchemaKnown: st.SchemaKnown,
		},
		Requests: requestStats(g.Requests.Snapshot()),
		Log:      requestLogStats(g.RequestLog.Stats()),
		Mirror: mirrorStats{
			Sent: copies.Sent, Failed: copies.Failed, Waiting: copies.Waiting,
			Dropped: mirrorDropped(copies.Dropped),
		},
	}
	if table := g.Table(); table != nil {
		body.Routes = routeCounts{Total: table.Len(), Served: table.Served(), Broken: table.Broken()}
	}
	return &statusOutput{Body: body}, nil
}
