package isekai

import (
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/isekai-gateway/isekai/pipeline"
	"github.com/isekai-gateway/isekai/routing"
	"github.com/isekai-gateway/isekai/store"
)

// record puts a request that is over into the request log, unless its route, or the
// app for those without one, says not to.
func (a *App) record(r *http.Request, route *routing.Route, x *pipeline.Exchange, began time.Time, status int, err error) {
	if a.RequestLog.Off || !sampled(a.RequestLog.Sample, route) {
		return
	}
	rec := &store.RequestLog{
		Method:    r.Method,
		Host:      r.Host,
		Path:      x.Path,
		Status:    status,
		Duration:  time.Since(began),
		ClientIP:  clientIP(r),
		UserAgent: r.UserAgent(),
		Upstream:  x.Upstream(),
		RequestID: x.RequestID,
		TraceID:   x.TraceID,
		CreatedAt: began,
	}
	rec.BytesIn, rec.BytesOut = x.Bytes()
	if who := x.Identity(); who != nil {
		rec.Consumer = who.Name
	}
	if route != nil {
		rec.RouteID = route.ID
	} else {
		rec.Path = r.URL.EscapedPath()
	}
	if err != nil {
		rec.Error = cause(err).Error()
	}
	a.gateway.RequestLog.Add(rec)
}

// sampled decides by lot whether a request is logged.
func sampled(byDefault *float64, route *routing.Route) bool {
	sample := byDefault
	if route != nil && route.Log != nil {
		if route.Log.Off {
			return false
		}
		if route.Log.Sample != nil {
			sample = route.Log.Sample
		}
	}
	return sample == nil || *sample >= 1 || rand.Float64() < *sample
}
