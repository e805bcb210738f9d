package isekai

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/isekai-gateway/isekai/pipeline"
)

// TestUntracedRequestsCostNothing where there is no tracing handler, whatever the
// client says.
func TestUntracedRequestsCostNothing(t *testing.T) {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header.Set("Traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
	x := new(pipeline.Exchange)
	if n := testing.AllocsPerRun(100, func() { beginTrace(r, x) }); n != 0 {
		t.Errorf("there are %v allocations", n)
	}
	if x.Span != nil || x.TraceID != "4bf92f3577b34da6a3ce929d0e0e4736" {
		t.Errorf("the exchange is of the trace %q and has the span %v", x.TraceID, x.Span)
	}
}
