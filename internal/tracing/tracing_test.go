package tracing

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
)

const (
	aTrace = "4bf92f3577b34da6a3ce929d0e0e4736"
	aSpan  = "00f067aa0ba902b7"
	aValid = "00-" + aTrace + "-" + aSpan + "-01"
)

func TestSanitize(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		field, value string
		kept         bool
	}{
		{traceparent, aValid, true},
		{traceparent, "00-" + aTrace + "-" + aSpan + "-00", true},
		{traceparent, "00-" + aTrace + "-" + aSpan + "-03", true},
		{traceparent, "cc-" + aTrace + "-" + aSpan + "-01", true},
		{traceparent, "cc-" + aTrace + "-" + aSpan + "-01-what-the-future-will-be-like", true},
		{traceparent, "cc-" + aTrace + "-" + aSpan + "-01.what", false},
		{traceparent, "cc-" + aTrace + "-" + aSpan + "-01-" + strings.Repeat("x", 300), false},
		{traceparent, "00-" + aTrace + "-" + aSpan + "-01-more", false},
		{traceparent, "ff-" + aTrace + "-" + aSpan + "-01", false},
		{traceparent, "", false},
		{traceparent, "00-" + aTrace + "-" + aSpan, false},
		{traceparent, "00-" + aTrace + "-" + aSpan + "-1", false},
		{traceparent, "00-" + aTrace[:31] + "g-" + aSpan + "-01", false},
		{traceparent, "00-" + strings.ToUpper(aTrace) + "-" + aSpan + "-01", false},
		{traceparent, "00-" + strings.Repeat("0", 32) + "-" + aSpan + "-01", false},
		{traceparent, "00-" + aTrace + "-" + strings.Repeat("0", 16) + "-01", false},
		{traceparent, "00_" + aTrace + "_" + aSpan + "_01", false},
		{traceparent, aValid + ", " + aValid, false},

		{tracestate, "a=1", true},
		{tracestate, "a=1, t-1_*/x@sys=opaque value!,, b=2", true},
		{tracestate, "", false},
		{tracestate, "a", false},
		{tracestate, "=1", false},
		{tracestate, "A=1", false},
		{tracestate, "a=b=c", false},
		{tracestate, "a=\x7f", false},
		{tracestate, "a=1,b", false},
		{tracestate, strings.Repeat("a=1,", 32), true},
		{tracestate, strings.Repeat("a=1,", 33), false},
		{tracestate, "a=" + strings.Repeat("1", 257), false},

		{baggage, "a=1", true},
		{baggage, "userId=alice, serverNode = DF%2028 ;p;q=1,b=", true},
		{baggage, "", false},
		{baggage, "a", false},
		{baggage, "a=1;", true},
		{baggage, "a=1;=", false},
		{baggage, "a b=1", false},
		{baggage, `a="1"`, false},
		{baggage, "a=1,b", false},
		{baggage, strings.Repeat("a=1,", 64), true},
		{baggage, strings.Repeat("a=1,", 65), false},
		{baggage, "a=" + strings.Repeat("1", 8<<10), false},
	} {
		h := http.Header{tt.field: {tt.value}}
		if tt.field == tracestate {
			h[traceparent] = []string{aValid}
		}
		Sanitize(h)
		if _, kept := h[tt.field]; kept != tt.kept {
			t.Errorf("%s %.80q is kept: %t", tt.field, tt.value, kept)
		}
	}
	h := http.Header{traceparent: {aValid, aValid}, tracestate: {"a=1"}, baggage: {"a=1", "b=2"}}
	if id := TraceID(h); id != "" {
		t.Errorf("of two parents there is the trace %s", id)
	}
	Sanitize(h)
	if diff := cmp.Diff(http.Header{baggage: {"a=1", "b=2"}}, h); diff != "" {
		t.Error(diff)
	}
	if id := TraceID(http.Header{traceparent: {aValid}}); id != aTrace {
		t.Errorf("the trace is %q", id)
	}
}

// record returns a request whose context has a span, and how to read what was
// recorded.
func record(t *testing.T, header http.Header) (*http.Request, trace.Span, func() map[string]sdktrace.ReadOnlySpan) {
	t.Helper()
	recorder := tracetest.NewSpanRecorder()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(recorder))
	t.Cleanup(func() { _ = provider.Shutdown(t.Context()) })
	r := httptest.NewRequest(http.MethodGet, "http://10.0.0.5/v1?key=secret", nil)
	r.Header = header
	ctx, span := provider.Tracer("test").Start(r.Context(), "handler", trace.WithSpanKind(trace.SpanKindServer)) //nolint:spancheck // the caller ends it
	return r.WithContext(ctx), span, func() map[string]sdktrace.ReadOnlySpan {                                   //nolint:spancheck // the caller ends it
		ended := make(map[string]sdktrace.ReadOnlySpan)
		for _, s := range recorder.Ended() {
			ended[s.Name()] = s
		}
		return ended
	}
}

func TestSend(t *testing.T) {
	t.Parallel()
	r, server, ended := record(t, http.Header{"X-Other": {"1"}})
	own := func(s trace.Span) string {
		return "00-" + s.SpanContext().TraceID().String() + "-" + s.SpanContext().SpanID().String() + "-01"
	}
	// Where the request names no parent, or another, it is left alone.
	for _, parent := range [][]string{nil, {aValid}, {own(server), own(server)}} {
		r.Header[traceparent] = parent
		sent, span, carried := Send(r, "left alone", 0, true)
		span.End()
		if carried || sent != r {
			t.Errorf("the parent %v has been replaced: %v", parent, sent.Header)
		}
	}
	r.Header[traceparent] = []string{own(server)}
	first, span, carried := Send(r, "first", 0, false)
	span.End()
	if !carried || first.Header.Get(traceparent) != own(span) || r.Header.Get(traceparent) != own(server) {
		t.Errorf("carried %t, sent %v, of %v", carried, first.Header, r.Header)
	}
	again, span, carried := Send(first, "second", 1, true)
	Failed(span, Kind(errors.New("x")), errors.New("x"))
	span.End()
	if !carried || again.Header.Get(traceparent) != own(span) {
		t.Errorf("carried %t, sent %v", carried, again.Header)
	}
	spans := ended()
	if got := spans["second"]; got.Parent().SpanID() != server.SpanContext().SpanID() || got.Status().Code != codes.Error {
		t.Errorf("the second time is %v with the status %v", got.Parent(), got.Status())
	}
	for _, a := range spans["first"].Attributes() {
		if strings.Contains(a.Value.String(), "secret") {
			t.Errorf("%s shows the query: %s", a.Key, a.Value.String())
		}
	}
}

func TestName(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, method, pattern, want, wantPattern string }{
		{"handler", http.MethodGet, "/a/{b}", "GET /a/{b}", ""},
		{"handler", "ATTACK-4711", "", "HTTP", ""},
		{"chosen", http.MethodGet, "/a/{b}", "chosen", "/a/{b}"},
	} {
		r, span, ended := record(t, nil)
		span.SetName(tt.name)
		r.Method = tt.method
		Name(span, r, tt.pattern)
		span.End()
		if _, ok := ended()[tt.want]; !ok || r.Pattern != tt.wantPattern {
			t.Errorf("%+v: the span is none of %v, the pattern %q", tt, ended(), r.Pattern)
		}
	}
}

// TestNothingIsAllocated where no span is recorded.
func TestNothingIsAllocated(t *testing.T) {
	unsampled := trace.ContextWithSpanContext(t.Context(), trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID{1}, SpanID: trace.SpanID{1},
	}))
	h := http.Header{traceparent: {aValid}, tracestate: {"a=1,b=2"}, baggage: {"a=1;p=2,b=3"}}
	for name, fn := range map[string]func(){
		"Recorded":            func() { _ = Recorded(t.Context()) },
		"Recorded, unsampled": func() { _ = Recorded(unsampled) },
		"Sanitize":            func() { Sanitize(h) },
		"Sanitize, nothing":   func() { Sanitize(nil) },
		"TraceID":             func() { _ = TraceID(h) },
	} {
		if n := testing.AllocsPerRun(100, fn); n != 0 {
			t.Errorf("%s allocates %v times", name, n)
		}
	}
	if len(h) != 3 {
		t.Errorf("the header has become %v", h)
	}
}
