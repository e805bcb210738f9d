package isekai

import (
	"errors"
	"net/http"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

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
		pattern = route.Path()
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

// describe adds the route to the variables of Caddy, and what is known of the request
// to what the access log and plugins say of it, if there are such. The fields are only
// found out when something is logged.
func (v *visit) describe(r *http.Request) {
	ctx := r.Context()
	if v.route != nil {
		caddyhttp.SetVar(ctx, "isekai.route", v.route.ID)
	}
	server, ok := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	if (!ok || server.Logs == nil) && (v.route == nil || len(v.route.Spec().Plugins) == 0) {
		return
	}
	if extra, ok := ctx.Value(caddyhttp.ExtraLogFieldsCtxKey).(*caddyhttp.ExtraLogFields); ok {
		extra.Add(zap.Inline(v))
	}
}

// MarshalLogObject implements zapcore.ObjectMarshaler. Empty fields are left out.
func (v *visit) MarshalLogObject(enc zapcore.ObjectEncoder) error {
	x := &v.exchange
	if v.route != nil {
		enc.AddInt64("isekai_route", v.route.ID)
	}
	enc.AddString("request_id", x.RequestID)
	for _, field := range [...]struct{ name, value string }{
		{"isekai_route_name", routeName(v.route)},
		{"isekai_upstream", x.Upstream()},
		{"isekai_cache", x.Cache},
		{"isekai_limit", x.Limited()},
		{"trace_id", x.TraceID},
	} {
		if field.value != "" {
			enc.AddString(field.name, field.value)
		}
	}
	return nil
}

func routeName(route *routing.Route) string {
	if route == nil {
		return ""
	}
	return route.Name()
}
