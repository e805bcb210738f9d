package e2e_test

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"github.com/google/go-cmp/cmp"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
)

// traceID makes an id that no other test uses.
func traceID(n int) string { return fmt.Sprintf("4bf92f3577b34da6a3ce929d0e0e%04x", n) }

// accessLog is a Caddyfile's log directive for a site whose log goes to the process's.
const accessLog = "log {\n output stderr\n format json\n }\n"

// accessLine returns what the access log says of a request.
func (g *gateway) accessLine(requestID string) map[string]any {
	g.t.Helper()
	var line map[string]any
	eventually(g.t, startTimeout, "the request is in the access log", func() error {
		for text := range strings.Lines(g.log.String()) {
			if !strings.Contains(text, `"logger":"http.log.access`) || !strings.Contains(text, requestID) {
				continue
			}
			return json.Unmarshal([]byte(text), &line)
		}
		return fmt.Errorf("it is not")
	})
	return line
}

// logRow returns what the request log says of a request.
func (g *gateway) logRow(requestID string) map[string]any {
	g.t.Helper()
	var page struct{ Items []map[string]any }
	eventually(g.t, startTimeout, "the request is in the request log", func() error {
		page.Items = nil
		g.call(http.MethodGet, "/api/logs?request_id="+requestID, nil).decode(g.t, &page)
		if len(page.Items) != 1 {
			return fmt.Errorf("there are %d rows", len(page.Items))
		}
		return nil
	})
	return page.Items[0]
}

// wantLogged fails the test for fields that are not as wanted; an empty one must not
// be there.
func wantLogged(t testing.TB, what string, got map[string]any, want map[string]string) {
	t.Helper()
	for name, value := range want {
		have := ""
		if got[name] != nil {
			have = fmt.Sprint(got[name])
		}
		if have != value {
			t.Errorf("%s: %s is %q, want %q", what, name, have, value)
		}
	}
}

func wantAttributes(t testing.TB, s span, want map[string]string) {
	t.Helper()
	for name, value := range want {
		if got := s.attributes[name]; got != value {
			t.Errorf("span %q: %s is %q, want %q", s.name, name, got, value)
		}
	}
}

// parentOf returns the trace and the span that a request names as its parent.
func parentOf(t testing.TB, h http.Header) (trace, parent, flags string) {
	t.Helper()
	values := h["Traceparent"]
	parts := strings.Split(strings.Join(values, " and "), "-")
	if len(values) != 1 || len(parts) != 4 {
		t.Fatalf("traceparent is %q", values)
	}
	return parts[1], parts[2], parts[3]
}

func TestTraces(t *testing.T) {
	t.Parallel()
	spans := newCollector(t)
	g := startGateway(t, settings{env: spans.environment(), site: accessLog + "tracing", options: "request_log {\nflush_interval 50ms\n}\n"})
	upstream, mirror := newRecorder(t), newRecorder(t)
	asked := newRecorder(t)
	r := g.create(route{
		Name: "orders", Path: "/orders/{id}", TargetURL: upstream.url + "/v1/{id}", RateLimit: 2,
		Auth: map[string]any{"any": []string{"api_key"}}, Mirror: map[string]any{"target_url": mirror.url},
		Plugins: plugins(`{"handler":"isekai_forward_auth","url":"`+asked.url+`/verify"}`,
			`{"handler":"headers","response":{"set":{"X-Seen":["{http.isekai.consumer} {http.isekai.upstream} {http.isekai.cache}"],"X-Later":["{http.isekai.upstream}"]},"deferred":true}}`),
	})
	key := g.keyOf("alice")
	address := strings.TrimPrefix(upstream.url, "http://")
	ip, port, _ := strings.Cut(address, ":")
	id := itoa(int(r.ID))

	for n, cache := range []string{"miss", "hit"} {
		trace := traceID(n)
		a := g.send(http.MethodGet, "/orders/7?secret=planted", traceOf(trace, true), withKey(key),
			header("Tracestate", "vendor=1"), header("Baggage", "tenant=blue;p=1"))
		if a.status != http.StatusOK {
			t.Fatalf("answer %s", a)
		}
		requestID := a.header.Get("X-Request-Id")
		if got, want := a.header.Get("X-Seen"), "alice "+address+" "+cache; got != want {
			t.Errorf("the placeholders are %q, want %q", got, want)
		}
		server, children := spans.wait(t, trace)
		if server.name != "GET /orders/{id}" || server.parent != "00f067aa0ba902b7" || server.failed {
			t.Errorf("the server's span is %+v", server)
		}
		wantAttributes(t, server, map[string]string{
			"http.route": "/orders/{id}", "isekai.route.id": id, "isekai.route.name": "orders", "isekai.consumer": "alice",
			"isekai.upstream": address, "isekai.cache": cache, "isekai.request_id": requestID,
			"http.response.status_code": "200", "http.request.resend_count": "", "isekai.limited": "",
		})
		if names := sortedNames(children); !slices.Equal(names, []string{"auth", "forward", "forward_auth", "limit"}) {
			t.Errorf("the children are %v", names)
		}
		wantAttributes(t, children["auth"], map[string]string{"isekai.consumer": "alice", "isekai.refused": ""})
		wantAttributes(t, children["forward"], map[string]string{
			"http.request.method": "GET", "server.address": ip, "server.port": port, "url.full": upstream.url + "/v1/7",
			"http.response.status_code": "200",
		})
		if kind := children["forward"].kind; kind != tracepb.Span_SPAN_KIND_CLIENT {
			t.Errorf("the forward span is of the kind %s", kind)
		}
		for name, to := range map[string]struct {
			got    seen
			parent string
		}{
			"upstream":     {upstream.waitTake(t), children["forward"].id},
			"forward auth": {asked.waitTake(t), children["forward_auth"].id},
			"mirror":       {mirror.waitTake(t), server.id},
		} {
			gotTrace, parent, flags := parentOf(t, to.got.header)
			if gotTrace != trace || parent != to.parent || flags != "01" {
				t.Errorf("%s: parent %s-%s-%s, want %s-%s-01", name, gotTrace, parent, flags, trace, to.parent)
			}
			if state, bag := to.got.header.Get("Tracestate"), to.got.header.Get("Baggage"); state != "vendor=1" || bag != "tenant=blue;p=1" {
				t.Errorf("%s: tracestate %q, baggage %q", name, state, bag)
			}
		}
		wantLogged(t, "request log", g.logRow(requestID), map[string]string{"trace_id": trace, "consumer": "alice", "upstream": address})
		wantLogged(t, "access log", g.accessLine(requestID), map[string]string{
			"trace_id": trace, "traceID": trace, "spanID": server.id, "isekai_route": id, "isekai_route_name": "orders", "consumer": "alice",
			"isekai_upstream": address, "isekai_cache": cache, "isekai_limit": "", "request_id": requestID,
		})
	}

	// Refusals: the answer is written behind the tracing handler.
	trace := traceID(2)
	a := g.send(http.MethodGet, "/orders/8", traceOf(trace, true), withKey(key))
	wantProblem(t, a, http.StatusTooManyRequests)
	server, children := spans.wait(t, trace)
	wantAttributes(t, server, map[string]string{"http.response.status_code": "429", "isekai.limited": "route", "isekai.upstream": "", "isekai.consumer": "alice"})
	wantAttributes(t, children["limit"], map[string]string{"isekai.limited": "route", "isekai.refused": "429"})
	if server.failed || children["limit"].failed || children["forward"].id != "" {
		t.Errorf("the refusal is %+v with %+v", server, children)
	}
	wantLogged(t, "access log", g.accessLine(a.header.Get("X-Request-Id")), map[string]string{"isekai_limit": "route", "isekai_upstream": "", "status": "429"})

	trace = traceID(3)
	wantProblem(t, g.send(http.MethodGet, "/orders/8", traceOf(trace, true), withKey("nonsense")), http.StatusUnauthorized)
	server, children = spans.wait(t, trace)
	wantAttributes(t, server, map[string]string{"http.response.status_code": "401", "isekai.consumer": ""})
	wantAttributes(t, children["auth"], map[string]string{"isekai.refused": "401"})

	trace = traceID(4)
	a = g.send(http.MethodGet, "/nowhere", traceOf(trace, true))
	wantProblem(t, a, http.StatusNotFound)
	server, children = spans.wait(t, trace)
	if server.name != "GET" || len(children) != 0 {
		t.Errorf("without a route there is %+v with %+v", server, children)
	}
	wantAttributes(t, server, map[string]string{"http.response.status_code": "404", "http.route": ""})
	wantLogged(t, "access log", g.accessLine(a.header.Get("X-Request-Id")), map[string]string{"trace_id": trace, "isekai_route": ""})

	if strings.Contains(fmt.Sprint(spans.ofTrace(traceID(0))), "planted") {
		t.Error("the spans show the query")
	}
}

func sortedNames(spans map[string]span) []string {
	names := make([]string, 0, len(spans))
	for name := range spans {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// TestTracesOfFailures has a span for each try, with why it failed.
func TestTracesOfFailures(t *testing.T) {
	t.Parallel()
	spans := newCollector(t)
	g := startGateway(t, settings{env: spans.environment(), site: "tracing"})
	list := newBackends(t, "a", "b")
	list[0].stop()
	parents := make(chan http.Header, 8)
	list[1].answer(func(w http.ResponseWriter, r *http.Request) {
		parents <- r.Header.Clone()
		_, _ = io.WriteString(w, "b")
	})
	u := poolOf(list...)
	u.Policy = "first"
	g.create(route{Path: "/retried", TargetURL: list[0].url(), Upstream: u})
	g.create(route{Path: "/dead", TargetURL: list[0].url()})
	g.create(route{Path: "/cut", TargetURL: "http://" + rawUpstream(t, say("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"))})
	broken := newBackend(t, "broken")
	broken.status(http.StatusTeapot)
	g.create(route{Path: "/teapot", TargetURL: broken.url()})

	g.wantBody("/retried", "b", traceOf(traceID(0), true))
	server, children := spans.wait(t, traceID(0))
	wantAttributes(t, server, map[string]string{"http.response.status_code": "200", "http.request.resend_count": "1", "isekai.upstream": list[1].address})
	var failed, good span
	for name, s := range children {
		if !strings.HasPrefix(name, "forward") {
			t.Errorf("there is a span %s", name)
		}
		if s.failed {
			failed = s
		} else {
			good = s
		}
	}
	wantAttributes(t, failed, map[string]string{"error.type": "connect", "http.request.resend_count": "", "http.response.status_code": ""})
	wantAttributes(t, good, map[string]string{"error.type": "", "http.request.resend_count": "1", "http.response.status_code": "200"})
	if _, parent, _ := parentOf(t, <-parents); parent != good.id {
		t.Errorf("the second target's parent is %s, want %s", parent, good.id)
	}

	wantProblem(t, g.send(http.MethodGet, "/dead", traceOf(traceID(1), true)), http.StatusBadGateway)
	server, children = spans.wait(t, traceID(1))
	wantAttributes(t, server, map[string]string{"http.response.status_code": "502", "error.type": "502"})
	if !server.failed || !children["forward"].failed {
		t.Errorf("the failure is %+v with %+v", server, children)
	}

	if a, err := g.trySend(http.MethodGet, "/cut", traceOf(traceID(2), true)); err == nil {
		t.Errorf("the answer is whole: %s", a)
	}
	server, children = spans.wait(t, traceID(2))
	if !server.failed || !children["forward"].failed {
		t.Errorf("the broken answer is %+v with %+v", server, children)
	}

	// An upstream's refusal is an error of the exchange, and none of the server.
	g.send(http.MethodGet, "/teapot", traceOf(traceID(3), true))
	server, children = spans.wait(t, traceID(3))
	wantAttributes(t, children["forward"], map[string]string{"error.type": "418", "http.response.status_code": "418"})
	if server.failed || !children["forward"].failed {
		t.Errorf("the refusal is %+v with %+v", server, children)
	}
}

// TestTracesOfStreams has a WebSocket go through Caddy's tracing handler, and its
// spans end with it.
func TestTracesOfStreams(t *testing.T) {
	t.Parallel()
	spans := newCollector(t)
	g := startGateway(t, settings{env: spans.environment(), site: "tracing"})
	parents := make(chan http.Header, 1)
	echoes := echoUpstream(t)
	g.create(route{Path: "/ws", TargetURL: echoes})
	g.create(route{Path: "/x", TargetURL: newUpstream(t, func(_ http.ResponseWriter, r *http.Request) { parents <- r.Header }).URL})

	conn := g.dialWebSocket("/ws")
	if err := echoText(conn); err != nil {
		t.Error(err)
	}
	// What has ended arrives; the WebSocket has not.
	g.send(http.MethodGet, "/x")
	trace, _, _ := parentOf(t, <-parents)
	spans.wait(t, trace)
	isUpgrade := func(s span) bool { return s.attributes["http.response.status_code"] == "101" }
	if list := spans.where(isUpgrade); len(list) != 0 {
		t.Errorf("the open WebSocket has spans: %+v", list)
	}
	_ = conn.Close(websocket.StatusNormalClosure, "")
	var list []span
	eventually(t, startTimeout, "the spans have arrived", func() error {
		if list = spans.where(isUpgrade); len(list) != 2 {
			return fmt.Errorf("there are %+v", list)
		}
		return nil
	})
	if list[0].name != "GET /ws" {
		list[0], list[1] = list[1], list[0]
	}
	if list[0].name != "GET /ws" || list[1].name != "forward" || list[1].parent != list[0].id || list[0].failed || list[1].failed {
		t.Errorf("the spans are %+v", list)
	}
}

// TestUnsampledTraces are passed on, and make no spans; a reload keeps the traces
// going.
func TestUnsampledTraces(t *testing.T) {
	t.Parallel()
	spans := newCollector(t)
	set := settings{env: spans.environment(), site: "tracing"}
	g := startGateway(t, set)
	upstream := newRecorder(t)
	g.create(route{Path: "/x", TargetURL: upstream.url, RateLimit: 1000})

	for n, base := range []int{0, 10} {
		if n > 0 {
			set.options = "max_concurrent 1000"
			g.configure(set)
			if err := g.reload(); err != nil {
				t.Fatal(err)
			}
		}
		g.wantBody("/x", "recorded", traceOf(traceID(base), false), header("Baggage", "a=b"))
		got := upstream.waitTake(t)
		trace, parent, flags := parentOf(t, got.header)
		if trace != traceID(base) || parent == "00f067aa0ba902b7" || flags != "00" || got.header.Get("Baggage") != "a=b" {
			t.Errorf("the upstream gets %s-%s-%s and baggage %q", trace, parent, flags, got.header.Get("Baggage"))
		}
		// The parent is the gateway's, so the client can't have it removed.
		g.wantBody("/x", "recorded", traceOf(traceID(base), false), header("Connection", "Traceparent, Baggage"), header("Baggage", "a=b"))
		got = upstream.waitTake(t)
		if trace, _, _ := parentOf(t, got.header); trace != traceID(base) || got.header.Get("Baggage") != "" {
			t.Errorf("the upstream gets the trace %s and baggage %q", trace, got.header.Get("Baggage"))
		}
		// What was sampled later arrives, so what was not would have, too.
		g.wantBody("/x", "recorded", traceOf(traceID(base+1), true))
		upstream.waitTake(t)
		if _, children := spans.wait(t, traceID(base+1)); len(children) != 2 {
			t.Errorf("children %v", sortedNames(children))
		}
		if list := spans.ofTrace(traceID(base)); len(list) != 0 {
			t.Errorf("the request that was not sampled has spans: %+v", list)
		}
	}
}

// TestTraceContextOfStrangers looks at what upstreams get of what clients say, with
// Caddy's handler and without.
func TestTraceContextOfStrangers(t *testing.T) {
	t.Parallel()
	valid := "00-" + traceID(0) + "-00f067aa0ba902b7-01"
	type context map[string][]string
	for _, tt := range []struct {
		name        string
		sent        context
		want        context // without Caddy's handler
		traced      context // with it, traceparent apart
		continuesID bool
		first       bool // Caddy's handler goes on with the first of several
	}{
		{name: "none"},
		{name: "whole", sent: context{"Traceparent": {valid}, "Tracestate": {"a=1,b@c=2"}, "Baggage": {"k=v"}},
			want:        context{"Traceparent": {valid}, "Tracestate": {"a=1,b@c=2"}, "Baggage": {"k=v"}},
			traced:      context{"Tracestate": {"a=1,b@c=2"}, "Baggage": {"k=v"}},
			continuesID: true},
		{name: "twice", sent: context{"Traceparent": {valid, valid}, "Tracestate": {"a=1"}}, want: context{},
			traced: context{"Tracestate": {"a=1"}}, first: true},
		{name: "garbage", sent: context{"Traceparent": {"x, y"}, "Tracestate": {"a=1"}, "Baggage": {"k"}}, want: context{}},
		{name: "capitals", sent: context{"Traceparent": {strings.ToUpper(valid)}}, want: context{}},
		{name: "zero", sent: context{"Traceparent": {"00-" + strings.Repeat("0", 32) + "-00f067aa0ba902b7-01"}}, want: context{}},
		{name: "state only", sent: context{"Tracestate": {"a=1"}}, want: context{}},
		{name: "malformed state", sent: context{"Traceparent": {valid}, "Tracestate": {"=="}}, want: context{"Traceparent": {valid}}, continuesID: true},
		{name: "large baggage", sent: context{"Baggage": {"k=" + strings.Repeat("v", 9000)}}, want: context{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for _, traced := range []bool{false, true} {
				set := settings{options: "request_log {\nflush_interval 50ms\n}\n", site: accessLog}
				if traced {
					spans := newCollector(t)
					set.env, set.site = spans.environment(), "tracing"
				}
				g := startGateway(t, set)
				upstream := newRecorder(t)
				g.create(route{Path: "/x", TargetURL: upstream.url})
				g.wantBody("/x", "recorded", func(r *http.Request) {
					maps.Copy(r.Header, tt.sent)
				}, header("X-Request-Id", "it"))
				got := context{}
				for name, values := range upstream.waitTake(t).header {
					if name == "Traceparent" || name == "Tracestate" || name == "Baggage" {
						got[name] = values
					}
				}
				row := g.logRow("it")
				logged, _ := row["trace_id"].(string)
				want, wantID := tt.want, ""
				if tt.continuesID {
					wantID = traceID(0)
				}
				if traced {
					trace, _, _ := parentOf(t, http.Header(got))
					if (trace == traceID(0)) != (tt.continuesID || tt.first) || logged != trace {
						t.Errorf("traced: the trace is %s, in the log %q", trace, logged)
					}
					delete(got, "Traceparent")
					want = tt.traced
				} else {
					if logged != wantID {
						t.Errorf("the log's trace is %q, want %q", logged, wantID)
					}
					wantLogged(t, "access log", g.accessLine(`"request_id":"it"`), map[string]string{"trace_id": wantID, "traceID": ""})
				}
				if want == nil {
					want = context{}
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("traced %t: what the upstream gets (-want +got):\n%s", traced, diff)
				}
			}
		})
	}
}

// TestTracesOnlyOfFriends is the README's configuration for clients that must not
// decide what is recorded.
func TestTracesOnlyOfFriends(t *testing.T) {
	t.Parallel()
	spans := newCollector(t)
	// The site's own isekai directive is never reached.
	g := startGateway(t, settings{env: spans.environment("OTEL_TRACES_SAMPLER=parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG=0"), site: `
	route {
		@strangers not header X-Friend 1
		request_header @strangers -Traceparent
		request_header @strangers -Tracestate
		request_header @strangers -Baggage
		tracing {
			span "edge {http.isekai.route_name}"
		}
		isekai
	}`})
	upstream := newRecorder(t)
	g.create(route{Name: "named", Path: "/x", TargetURL: upstream.url})
	g.wantBody("/x", "recorded", traceOf(traceID(0), true), header("Baggage", "a=b"))
	got := upstream.waitTake(t)
	if trace, _, flags := parentOf(t, got.header); trace == traceID(0) || flags != "00" || got.header.Get("Baggage") != "" {
		t.Errorf("the stranger's trace %s-%s goes on, baggage %q", trace, flags, got.header.Get("Baggage"))
	}
	g.wantBody("/x", "recorded", traceOf(traceID(1), true), header("X-Friend", "1"))
	upstream.waitTake(t)
	if server, children := spans.wait(t, traceID(1)); len(children) != 1 || server.name != "edge named" {
		t.Errorf("the friend's trace is %+v with %v", server, sortedNames(children))
	}
	if list := spans.ofTrace(traceID(0)); len(list) != 0 {
		t.Errorf("the stranger has had spans recorded: %+v", list)
	}
}
