package isekai

import (
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/isekai-gateway/isekai/pipeline"
	"github.com/isekai-gateway/isekai/requestlog"
	"github.com/isekai-gateway/isekai/routing"
	"github.com/isekai-gateway/isekai/stats"
	"github.com/isekai-gateway/isekai/store"
)

// newRedactor returns what keeps the app's secrets out of the request log.
func (a *App) newRedactor() *requestlog.Redactor {
	headers, params := a.verifier.KeyFields()
	redacted := a.RequestLog.RedactQuery
	if redacted == nil {
		redacted = requestlog.SecretParams
	}
	return requestlog.NewRedactor(slices.Concat(a.RequestLog.RedactHeaders, headers), slices.Concat(redacted, params))
}

// visit is what is kept of a request until it is over, in one piece of memory.
type visit struct {
	exchange pipeline.Exchange
	route    *routing.Route // nil for none
	began    time.Time

	// What the route's log settings ask for, as it came: plugins may change it.
	query   string
	headers map[string]string
}

// note keeps what the route's log settings ask for.
func (v *visit) note(a *App, r *http.Request, route *routing.Route) {
	settings := route.Spec().Log
	if settings == nil || settings.Off || a.RequestLog.Off {
		return
	}
	if settings.Query {
		v.query = a.redactor.Query(r.URL.RawQuery)
	}
	v.headers = a.redactor.Headers(r.Header, settings.Headers)
}

// maxPinned is how long a request's target may be for a record to hold parts of it.
const maxPinned = 1024

// record counts a request that is over, and puts it into the request log, unless its
// route, or the app for those without one, says not to.
func (a *App) record(r *http.Request, route *routing.Route, x *pipeline.Exchange, v *visit, status int, err error) {
	now := time.Now()
	took := now.Sub(v.began)
	in, out := x.Bytes()
	id := stats.None
	if route != nil {
		id = route.ID
	}
	a.gateway.Traffic.Observe(id, &stats.Request{
		Method: r.Method, Status: status, Took: took, Upstream: x.Waited(), BytesIn: in, BytesOut: out,
		Ended: now,
	})
	if a.RequestLog.Off || !sampled(a.RequestLog.Sample, route) {
		return
	}
	rec := &store.RequestLog{
		RouteID:   id,
		Method:    r.Method,
		Host:      r.Host,
		Path:      x.Path,
		Status:    status,
		Duration:  took,
		ClientIP:  clientIP(r),
		UserAgent: r.UserAgent(),
		Upstream:  x.Upstream(),
		BytesIn:   in,
		BytesOut:  out,
		RequestID: x.RequestID,
		CreatedAt: v.began,
		TraceID:   x.TraceID,
		Query:     v.query,
		Headers:   v.headers,
	}
	if route == nil {
		rec.Path = r.URL.EscapedPath()
	}
	if who := x.Identity(); who != nil {
		rec.Consumer = who.Name
	}
	if err != nil {
		rec.Error = cause(err).Error()
	}
	rec.Trim()
	if len(r.RequestURI) > maxPinned {
		// They are parts of it, and would keep the whole in memory.
		rec.Path, rec.Query = strings.Clone(rec.Path), strings.Clone(rec.Query)
	}
	a.gateway.RequestLog.Add(rec)
}

// sampled decides by lot whether a request is logged.
func sampled(byDefault *float64, route *routing.Route) bool {
	sample := byDefault
	if route != nil && route.Spec().Log != nil {
		settings := route.Spec().Log
		if settings.Off {
			return false
		}
		if settings.Sample != nil {
			sample = settings.Sample
		}
	}
	return sample == nil || *sample >= 1 || rand.Float64() < *sample
}
