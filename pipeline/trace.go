package pipeline

import (
	"errors"
	"net/http"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/isekai-gateway/isekai/internal/tracing"
)

// step begins the span of a step of an exchange that is traced.
func step(r *http.Request, name string) trace.Span {
	return tracing.Start(r.Context(), name, trace.SpanKindInternal)
}

// endStep ends it with what the step found out, if anything, and the status that the
// request was refused with. A refusal is no failure of the gateway's.
func endStep(span trace.Span, err error, found attribute.KeyValue) {
	defer span.End()
	if found.Value.AsString() != "" {
		span.SetAttributes(found)
	}
	refused, ok := errors.AsType[caddyhttp.HandlerError](err)
	if !ok {
		return
	}
	span.SetAttributes(attribute.Int("isekai.refused", refused.StatusCode))
	if refused.StatusCode >= http.StatusInternalServerError {
		span.SetStatus(codes.Error, refused.Err.Error())
	}
}
