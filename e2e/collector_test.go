package e2e_test

import (
	"context"
	"encoding/hex"
	"fmt"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
)

// spanCollector is a receiver of OTLP over gRPC that keeps what it gets.
type spanCollector struct {
	collector.UnimplementedTraceServiceServer
	address string

	mu    sync.Mutex
	spans []span
}

// span is a span as tests look at it.
type span struct {
	trace, id, parent string
	name              string
	kind              tracepb.Span_SpanKind
	failed            bool
	attributes        map[string]string
}

func newCollector(t testing.TB) *spanCollector {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &spanCollector{address: l.Addr().String()}
	server := grpc.NewServer()
	collector.RegisterTraceServiceServer(server, c)
	go func() { _ = server.Serve(l) }()
	t.Cleanup(server.Stop)
	return c
}

// environment has a gateway send its spans here, soon.
func (c *spanCollector) environment(more ...string) []string {
	return append([]string{
		"OTEL_EXPORTER_OTLP_ENDPOINT=http://" + c.address,
		"OTEL_EXPORTER_OTLP_PROTOCOL=grpc",
		"OTEL_BSP_SCHEDULE_DELAY=20",
		"OTEL_SERVICE_NAME=edge",
	}, more...)
}

// Export implements collector.TraceServiceServer.
func (c *spanCollector) Export(_ context.Context, r *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, resource := range r.ResourceSpans {
		for _, scope := range resource.ScopeSpans {
			for _, s := range scope.Spans {
				c.spans = append(c.spans, spanOf(s))
			}
		}
	}
	return new(collector.ExportTraceServiceResponse), nil
}

func spanOf(s *tracepb.Span) span {
	out := span{
		trace: hex.EncodeToString(s.TraceId), id: hex.EncodeToString(s.SpanId), parent: hex.EncodeToString(s.ParentSpanId),
		name: s.Name, kind: s.Kind, failed: s.Status.GetCode() == tracepb.Status_STATUS_CODE_ERROR,
		attributes: make(map[string]string),
	}
	for _, a := range s.Attributes {
		switch v := a.Value.Value.(type) {
		case *common.AnyValue_StringValue:
			out.attributes[a.Key] = v.StringValue
		case *common.AnyValue_IntValue:
			out.attributes[a.Key] = itoa(int(v.IntValue))
		}
	}
	return out
}

// ofTrace returns the spans of a trace that have arrived, in order of their names.
func (c *spanCollector) ofTrace(id string) []span {
	list := c.where(func(s span) bool { return s.trace == id })
	slices.SortStableFunc(list, func(a, b span) int {
		switch {
		case a.name < b.name:
			return -1
		case a.name > b.name:
			return 1
		}
		return 0
	})
	return list
}

// where returns the spans that have arrived and are as wanted.
func (c *spanCollector) where(wanted func(span) bool) []span {
	c.mu.Lock()
	defer c.mu.Unlock()
	var list []span
	for _, s := range c.spans {
		if wanted(s) {
			list = append(list, s)
		}
	}
	return list
}

// wait waits until a trace has a server's span, which is the last to end, and returns
// that and its children by their names. Several of one name have numbers.
func (c *spanCollector) wait(t testing.TB, trace string) (server span, children map[string]span) {
	t.Helper()
	var list []span
	eventually(t, startTimeout, "the trace has arrived", func() error {
		list = c.ofTrace(trace)
		if !slices.ContainsFunc(list, isServer) {
			return fmt.Errorf("of trace %s there is %+v", trace, list)
		}
		return nil
	})
	children = make(map[string]span)
	for _, s := range list {
		if isServer(s) {
			server = s
		}
	}
	for _, s := range list {
		if isServer(s) {
			continue
		}
		if s.parent != server.id {
			t.Errorf("span %s has the parent %s, want %s", s.name, s.parent, server.id)
		}
		name := s.name
		for n := 2; children[name].id != ""; n++ {
			name = s.name + " " + itoa(n)
		}
		children[name] = s
	}
	return server, children
}

func isServer(s span) bool { return s.kind == tracepb.Span_SPAN_KIND_SERVER }

// traceOf makes a client's trace context.
func traceOf(trace string, sampled bool) func(*http.Request) {
	flags := "00"
	if sampled {
		flags = "01"
	}
	return header("Traceparent", "00-"+trace+"-00f067aa0ba902b7-"+flags)
}
