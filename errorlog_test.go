package isekai

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/isekai-gateway/isekai/pipeline"
	"github.com/isekai-gateway/isekai/proxy"
)

// TestErrorLogInFloods notes errors at times that the test sets, and looks at the
// lines that come of them.
func TestErrorLogInFloods(t *testing.T) {
	t.Parallel()
	core, logs := observer.New(zapcore.DebugLevel)
	l := newErrorLog(zap.New(core))
	now := time.Unix(1e9, 0)
	l.now = func() time.Time { return now }
	r := httptest.NewRequest(http.MethodGet, "/a%20b?secret=1", nil)
	x := &pipeline.Exchange{RequestID: "id", TraceID: "trace"}
	note := func(times int, route int64, status int, err error) {
		for range times {
			l.note(failed{request: r, route: route, exchange: x, status: status, err: caddyhttp.Error(status, err)})
		}
	}
	lines := func() []string {
		var got []string
		for _, e := range logs.TakeAll() {
			f := e.ContextMap()
			got = append(got, fmt.Sprintf("%s %s: %v %v %v", e.Level, e.Message, f["status"], f["route"], f["suppressed"]))
			if f["request_id"] != "id" || f["trace_id"] != "trace" || f["path"] != "/a%20b" || f["error"] == nil {
				t.Errorf("a line has %v", f)
			}
		}
		return got
	}
	want := func(what string, want ...string) {
		t.Helper()
		if diff := cmp.Diff(want, lines()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	dead := errors.New("dead")

	note(5000, 1, 502, dead)
	want("a flood of failures", "error request failed: 502 1 <nil>", "error request failed: 502 1 <nil>", "error request failed: 502 1 <nil>")
	note(1, 2, 502, dead)
	note(1, 1, 504, dead)
	want("others", "error request failed: 502 2 <nil>", "error request failed: 504 1 <nil>")
	now = now.Add(failureWindow)
	note(2, 1, 502, dead)
	want("the next window", "error request failed: 502 1 4997", "error request failed: 502 1 <nil>")
	note(1, 9, 503, fmt.Errorf("%w: x", proxy.ErrNoTarget))
	want("a state", "warn request failed: 503 9 <nil>")
	l.panicked(failed{request: r, exchange: x, status: 500, err: errPanicked}, "oops")
	note(1, 0, 500, errPanicked)
	want("a panic", "error a handler panicked: 500 <nil> <nil>")

	now = now.Add(2 * failureWindow)
	for route := range int64(3 * maxFailureKeys) {
		note(2, 1000+route, 500, dead)
	}
	if n := len(lines()); n != 2*maxFailureKeys+failureLines || len(l.failures) > maxFailureKeys+1 {
		t.Errorf("many routes make %d lines and %d counts", n, len(l.failures))
	}

	note(refusalFlood-1, 0, 404, errNoRoute)
	note(refusalFlood-1, 0, 429, errNoRoute)
	note(5*refusalFlood, 0, 499, errNoRoute)
	want("few refusals")
	note(10*refusalFlood, 0, 404, errNoRoute)
	want("a flood of refusals", "warn many requests are refused; this is one of them: 404 <nil> <nil>")
	now = now.Add(refusalWindow)
	note(2*refusalFlood, 0, 404, errNoRoute)
	if e := logs.TakeAll(); len(e) != 1 || e[0].ContextMap()["minute_before"] != int64(11*refusalFlood-1) {
		t.Errorf("the next minute has %v", e)
	}
}
