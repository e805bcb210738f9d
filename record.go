package isekai

import (
	"errors"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/isekai-gateway/isekai/pipeline"
	"github.com/isekai-gateway/isekai/routing"
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

// asked is what a route's log settings ask for of a request, as it came: plugins may
// change it on its way.
type asked struct {
	query   string
	headers map[string]string
}

// asked reads that. A nil route asks for nothing.
func (a *App) asked(r *http.Request, route *routing.Route) (q asked) {
	if route == nil || route.Log == nil || route.Log.Off || a.RequestLog.Off {
		return asked{}
	}
	if route.Log.Query {
		q.query = a.redactor.Query(r.URL.RawQuery)
	}
	q.headers = a.redactor.Headers(r.Header, route.Log.Headers)
	return q
}

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
		// Caddy's own text would have a random id and a source line.
		if handlerErr, ok := errors.AsType[caddyhttp.HandlerError](err); ok && handlerErr.Err != nil {
			err = handlerErr.Err
		}
		rec.Error = err.Error()
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
