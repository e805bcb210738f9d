package isekai

import (
	"errors"
	"net/http"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"

	"github.com/isekai-gateway/isekai/internal/tracing"
	"github.com/isekai-gateway/isekai/pipeline"
	"github.com/isekai-gateway/isekai/routing"
)

// errCut says that an answer could not be sent to its end.
var errCut = errors.New("the answer was broken off")

// beginTrace finds the trace that a request belongs to: the one of Caddy's tracing
// handler, else the one that the client has begun.
func beginTrace(r *http.Request, x *pipeline.Exchange) {
	span := trace.SpanFromContext(r.Context())
	if own := span.SpanContext(); own.IsValid() {
		x.TraceID = own.TraceID().String()
	} else {
		x.TraceID = tracing.TraceID(r.Header)
	}
	if span.IsRecording() {
		x.Span = span
	}
}

// endTrace puts what became of a request on its span.
func endTrace(r *http.Request, route *routing.Route, x *pipeline.Exchange, status int, err error, broken bool) {
	span, pattern := x.Span, ""
	list := make([]attribute.KeyValue, 0, 10)
	list = append(list, attribute.String("isekai.request_id", x.RequestID))
	if route != nil {
		pattern = route.Path
		list = append(list, attribute.String("http.route", pattern), attribute.Int64("isekai.route.id", route.ID))
	}
	for _, optional := range [...]attribute.KeyValue{
		attribute.String("isekai.route.name", routeName(route)),
		attribute.String("isekai.consumer", x.Consumer()),
		attribute.String("isekai.upstream", x.Upstream()),
		attribute.String("isekai.cache", x.Cache),
		attribute.String("isekai.limited", x.Limited()),
	} {
		if optional.Value.AsString() != "" {
			list = append(list, optional)
		}
	}
	if n := x.Retries(); n > 0 {
		list = append(list, attribute.Int("http.request.resend_count", n))
	}
	span.SetAttributes(list...)
	tracing.Name(span, r, pattern)
	if x.Status() != 0 {
		status = x.Status()
	}
	switch {
	case err != nil && x.Status() == 0:
		// Caddy answers an error behind its tracing handler, which would say 200. So
		// the span ends here, as long as it is right.
		tracing.Served(span, status, cause(err))
		span.End()
	case broken && r.Context().Err() == nil:
		tracing.Served(span, status, nil)
		tracing.Failed(span, "cut", errCut)
	case broken: // the client has left
		tracing.Served(span, status, nil)
	}
}

// describe adds the route to the variables of Caddy, and to what plugins and the
// access log say of the request.
func describe(r *http.Request, route *routing.Route, x *pipeline.Exchange) {
	caddyhttp.SetVar(r.Context(), "isekai.route", route.ID)
	if extra, ok := r.Context().Value(caddyhttp.ExtraLogFieldsCtxKey).(*caddyhttp.ExtraLogFields); ok {
		extra.Add(zap.Int64("isekai_route", route.ID))
		extra.Add(zap.String("request_id", x.RequestID))
	}
}

// summarize adds to the access log, if there is one, what is known only once the
// request is over. Empty fields are left out.
func summarize(r *http.Request, route *routing.Route, x *pipeline.Exchange) {
	server, ok := r.Context().Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	if !ok || server.Logs == nil {
		return
	}
	extra, ok := r.Context().Value(caddyhttp.ExtraLogFieldsCtxKey).(*caddyhttp.ExtraLogFields)
	if !ok {
		return
	}
	if route == nil {
		extra.Add(zap.String("request_id", x.RequestID))
	}
	for _, field := range [...]zap.Field{
		zap.String("isekai_route_name", routeName(route)),
		zap.String("isekai_upstream", x.Upstream()),
		zap.String("isekai_cache", x.Cache),
		zap.String("isekai_limit", x.Limited()),
		zap.String("trace_id", x.TraceID),
	} {
		if field.String != "" {
			extra.Add(field)
		}
	}
}

func routeName(route *routing.Route) string {
	if route == nil {
		return ""
	}
	return route.Name
}
