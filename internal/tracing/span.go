// Package tracing adds to the traces that Caddy's tracing handler begins, and
// knows what a request's trace context (W3C) may look like. Where no span is
// recorded, nothing here allocates.
package tracing

import (
	"context"
	"errors"
	"maps"
	"net"
	"net/http"
	"strconv"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// scope is what the spans are said to come from.
const scope = "github.com/isekai-gateway/isekai"

// Recorded returns the span that ctx belongs to if somebody records it, else nil:
// there is none, or it was not sampled.
func Recorded(ctx context.Context) trace.Span {
	if span := trace.SpanFromContext(ctx); span.IsRecording() {
		return span
	}
	return nil
}

// Start begins a child of the span that ctx belongs to, which is recorded. The
// caller ends it.
func Start(ctx context.Context, name string, kind trace.SpanKind) trace.Span {
	_, span := trace.SpanFromContext(ctx).TracerProvider().Tracer(scope).Start(ctx, name, trace.WithSpanKind(kind)) //nolint:spancheck // the caller ends it
	return span                                                                                                     //nolint:spancheck // the caller ends it
}

// Send begins a client span for one exchange of a request that the gateway is about
// to send. It returns a copy of the request that names the span as its parent, if
// the request names that of its context: where a Caddyfile, a plugin or
// OTEL_PROPAGATORS has it otherwise, that stands. With resent, as which time the
// request is sent again, it names the span anyhow if carry says so; carry of the
// first time is returned. The URL's query is left out, since it may hold secrets.
func Send(r *http.Request, name string, resent int, carry bool) (sent *http.Request, span trace.Span, carried bool) {
	parent := trace.SpanContextFromContext(r.Context())
	ctx, span := trace.SpanFromContext(r.Context()).TracerProvider().Tracer(scope).Start(
		r.Context(), name, trace.WithSpanKind(trace.SpanKindClient))
	u := *r.URL
	u.RawQuery, u.ForceQuery, u.Fragment, u.User = "", false, "", nil
	span.SetAttributes(attribute.String("http.request.method", r.Method), attribute.String("url.full", u.String()))
	span.SetAttributes(address(u.Host, u.Scheme)...)
	if resent > 0 {
		span.SetAttributes(attribute.Int("http.request.resend_count", resent))
	} else {
		carry = names(r.Header, parent)
	}
	if !carry {
		return r, span, false
	}
	// A transport may still be reading the fields of the time before.
	sent = r.WithContext(r.Context())
	sent.Header = maps.Clone(r.Header)
	delete(sent.Header, tracestate)
	propagation.TraceContext{}.Inject(ctx, propagation.HeaderCarrier(sent.Header))
	return sent, span, true
}

// names reports whether a header names a span as the request's parent.
func names(h http.Header, span trace.SpanContext) bool {
	values := h[traceparent]
	if len(values) != 1 || !validParent(values[0]) {
		return false
	}
	return span.IsValid() && values[0][36:52] == span.SpanID().String()
}

// Parent is what Caddy's tracing handler tells upstreams about the span that a request
// belongs to. The zero value is nothing.
type Parent struct{ parent, state []string }

// ParentOf returns the parent that r names, if that is the span of its context.
func ParentOf(r *http.Request) Parent {
	if !names(r.Header, trace.SpanContextFromContext(r.Context())) {
		return Parent{}
	}
	return Parent{r.Header[traceparent], r.Header[tracestate]}
}

// Restore puts the parent back on a request that may have lost it.
func (p Parent) Restore(h http.Header) {
	if p.parent != nil {
		h[traceparent] = p.parent
	}
	if p.state != nil {
		h[tracestate] = p.state
	}
}

// address describes a host and port.
func address(authority, scheme string) []attribute.KeyValue {
	host, port, err := net.SplitHostPort(authority)
	if err != nil {
		host, port = authority, "80"
		if scheme == "https" {
			port = "443"
		}
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		return []attribute.KeyValue{attribute.String("server.address", authority)}
	}
	return []attribute.KeyValue{attribute.String("server.address", host), attribute.Int("server.port", n)}
}

// Answered notes the status of an answer on a client's span, for which all from 400
// on are errors (OpenTelemetry's conventions for HTTP).
func Answered(span trace.Span, status int) {
	span.SetAttributes(attribute.Int("http.response.status_code", status))
	if status >= http.StatusBadRequest {
		span.SetAttributes(attribute.String("error.type", strconv.Itoa(status)))
		span.SetStatus(codes.Error, "")
	}
}

// Failed notes why there was no answer, or not the whole. kind is one of few words
// for the error, as error.type asks for.
func Failed(span trace.Span, kind string, err error) {
	span.SetAttributes(attribute.String("error.type", kind))
	span.SetStatus(codes.Error, err.Error())
}

// Kind is a word for an error of an exchange.
func Kind(err error) string {
	var timeout interface{ Timeout() bool }
	switch {
	case errors.Is(err, context.Canceled):
		return "canceled"
	case errors.As(err, &timeout) && timeout.Timeout():
		return "timeout"
	case isDial(err):
		return "connect"
	}
	return "_OTHER"
}

func isDial(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "dial"
}

// Served describes the answer to a request on its server's span, for which only
// those from 500 on are errors. cause may be nil.
func Served(span trace.Span, status int, cause error) {
	span.SetAttributes(attribute.Int("http.response.status_code", status))
	if status < http.StatusInternalServerError {
		return
	}
	span.SetAttributes(attribute.String("error.type", strconv.Itoa(status)))
	text := ""
	if cause != nil {
		text = cause.Error()
	}
	span.SetStatus(codes.Error, text)
}

// defaultName is what Caddy's tracing handler calls spans that the configuration
// has no name for.
const defaultName = "handler"

// Name gives a server's span the name that conventions ask for, the method and the
// route's pattern, unless the configuration has named it. A name with placeholders
// is worked out anew when the handler has returned, since some of them are known
// only then.
func Name(span trace.Span, r *http.Request, pattern string) {
	named, ok := span.(interface{ Name() string })
	switch {
	case !ok || named.Name() != defaultName:
		// What otelhttp takes for the sign that there is a better name now.
		r.Pattern = pattern
	case pattern == "":
		span.SetName(method(r.Method))
	default:
		span.SetName(method(r.Method) + " " + pattern)
	}
}

// method is a request's method where a client must not invent names.
func method(m string) string {
	switch m {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete,
		http.MethodOptions, http.MethodConnect, http.MethodTrace:
		return m
	}
	return "HTTP"
}
