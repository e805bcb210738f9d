package e2e_test

import (
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"strings"
	"testing"
)

// mirrorStats are the mirrors' counters in /api/status.
type mirrorStats struct {
	Sent    int            `json:"sent"`
	Failed  int            `json:"failed"`
	Waiting int            `json:"waiting"`
	Dropped map[string]int `json:"dropped"`
}

func (g *gateway) mirrorStats() mirrorStats {
	g.t.Helper()
	var status struct {
		Mirror mirrorStats `json:"mirror"`
	}
	g.call(http.MethodGet, "/api/status", nil).decode(g.t, &status)
	return status.Mirror
}

// waitMirror waits until the mirrors' counters are these, and none else.
func (g *gateway) waitMirror(sent, failed int, dropped map[string]int) {
	g.t.Helper()
	eventually(g.t, startTimeout, "the mirrors' counters are right", func() error {
		got := g.mirrorStats()
		maps.DeleteFunc(got.Dropped, func(_ string, n int) bool { return n == 0 })
		if got.Sent != sent || got.Failed != failed || got.Waiting != 0 || !maps.Equal(got.Dropped, dropped) {
			return fmt.Errorf("they are %+v, want %d sent, %d failed, %v dropped", got, sent, failed, dropped)
		}
		return nil
	})
}

// waitTake waits until the recorder has got something.
func (rec *recorder) waitTake(t testing.TB) seen {
	t.Helper()
	var got []seen
	eventually(t, startTimeout, "the request has arrived", func() error {
		if got = append(got, rec.take()...); len(got) == 0 {
			return fmt.Errorf("there is none")
		}
		return nil
	})
	if len(got) > 1 {
		t.Errorf("there are %d requests, want one: %+v", len(got), got)
	}
	return got[0]
}

// TestMirrorCopies compares what the upstream and the mirror get.
func TestMirrorCopies(t *testing.T) {
	t.Parallel()
	g := startGateway(t, settings{sites: tlsSite})
	upstream, mirror := newRecorder(t), newRecorder(t)
	g.create(route{Path: "/v1/*", Method: "*", TargetURL: upstream.url + "/v2", StripPrefix: true, PreserveHost: true,
		Mirror: map[string]any{"target_url": mirror.url},
		Plugins: plugins(`{"handler":"headers","request":{"set":{"X-Set":["{http.isekai.request_id}"]}}}`,
			`{"handler":"rewrite","uri_substring":[{"find":"before","replace":"after"}]}`)})
	g.waitCertificate("localhost")
	secure := g.secureClient("localhost")
	chunked := func(r *http.Request) { r.ContentLength = -1 }
	trailers := func(r *http.Request) { r.ContentLength, r.Trailer = -1, http.Header{"X-Sum": {"1"}} }
	for name, via := range map[string]struct {
		client *http.Client
		base   string
	}{"http1": {g.client, "http://" + g.http}, "http2": {secure, "https://localhost:" + port(g.https)}} {
		for _, c := range []struct {
			method, target, body string
			change               func(*http.Request)
		}{
			{http.MethodGet, "/v1/a%2Fb%20c?d=e%20f&d", "", nil},
			{http.MethodHead, "/v1/", "", nil},
			{http.MethodPost, "/v1/before", strings.Repeat("0123456789", 6000), nil},
			{http.MethodPut, "/v1/x", "chunked", chunked},
			{http.MethodPatch, "/v1/x", "trailers", trailers},
			{http.MethodDelete, "/v1/x", "", func(r *http.Request) {
				r.Header.Set("X-Forwarded-For", "192.0.2.1")
				r.Header.Set("Forwarded", "for=192.0.2.1")
				r.Header.Set("X-Isekai-Mirror", "1")
				r.Header.Set("X-Request-Id", "mine")
			}},
		} {
			req, err := http.NewRequest(c.method, via.base+c.target, nil)
			if err != nil {
				t.Fatal(err)
			}
			if c.body != "" {
				payload(c.body)(req)
			}
			if c.change != nil {
				c.change(req)
			}
			resp, err := via.client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			want, got := upstream.waitTake(t), mirror.waitTake(t)
			if got.header.Get("X-Isekai-Mirror") == "" || want.header.Get("X-Isekai-Mirror") != "" {
				t.Errorf("%s %s %s: the marker is %q to the mirror, %q to the upstream", name, c.method, c.target,
					got.header.Get("X-Isekai-Mirror"), want.header.Get("X-Isekai-Mirror"))
			}
			got.header.Del("X-Isekai-Mirror")
			if got.body != c.body || fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
				t.Errorf("%s %s %s: the mirror got\n%+v, the upstream\n%+v", name, c.method, c.target, got, want)
			}
		}
	}
	g.waitMirror(12, 0, nil)
}

// TestMirrorsInTrouble has mirrors that can't be reached, and that answer nothing
// until all requests have come back.
func TestMirrorsInTrouble(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	slow := newUpstream(t, func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	})
	g := startGateway(t, settings{options: "stats_interval 100ms"})
	rec := textUpstream(t, "fine")
	g.create(route{Path: "/down", TargetURL: rec, Mirror: map[string]any{"target_url": fmt.Sprintf("http://127.0.0.1:%d", freePort(t))}})
	g.create(route{Path: "/silent", TargetURL: rec, Mirror: map[string]any{"target_url": "http://" + rawUpstream(t, silence), "timeout": 1}})
	g.create(route{Path: "/slow", TargetURL: rec, Mirror: map[string]any{"target_url": slow.URL, "timeout": 60}})
	const requests = 5
	for range requests {
		for _, path := range []string{"/down", "/silent", "/slow"} {
			g.wantBody(path, "fine")
		}
	}
	close(release)
	g.waitMirror(requests, 2*requests, nil)
	line := fmt.Sprintf(`"mirror_sent":%d,"mirror_failed":%d`, requests, 2*requests)
	eventually(t, startTimeout, "the counters are in the log", func() error {
		if !strings.Contains(g.log.String(), line) {
			return fmt.Errorf("no line has %s", line)
		}
		return nil
	})
	if strings.Count(g.log.String(), "copies can't be delivered") != 2 {
		t.Error("each mirror's failures are to be logged once")
	}
}

// TestExitWithAHangingMirror ends the gateway while copies wait for answers: the
// end of every test checks how it ended.
func TestExitWithAHangingMirror(t *testing.T) {
	t.Parallel()
	g := startGateway(t, settings{})
	g.create(route{Path: "/x", TargetURL: textUpstream(t, "fine"), Mirror: map[string]any{"target_url": "http://" + rawUpstream(t, silence), "timeout": 60}})
	for range 20 {
		g.wantBody("/x", "fine")
	}
	eventually(t, startTimeout, "copies are on their way and others wait", func() error {
		if s := g.mirrorStats(); s.Waiting != 12 {
			return fmt.Errorf("the counters are %+v", s)
		}
		return nil
	})
}

func TestMirrorBodies(t *testing.T) {
	t.Parallel()
	g := startGateway(t, settings{})
	mirror := newRecorder(t)
	const size = 20 << 20
	want, err := sum(content(size))
	if err != nil {
		t.Fatal(err)
	}
	upstream := newUpstream(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/early" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		got, err := sum(r.Body)
		fmt.Fprint(w, got, err)
	})
	g.create(route{Path: "/*", Method: "PUT", TargetURL: upstream.URL, Mirror: map[string]any{"target_url": mirror.url, "body_max": 1000}})
	for _, length := range []int64{size, -1} {
		a := g.send(http.MethodPut, "/large", func(r *http.Request) { r.Body, r.ContentLength = io.NopCloser(content(size)), length })
		if string(a.body) != want+"<nil>" {
			t.Errorf("length %d: the upstream has read %s, want %s", length, a, want)
		}
	}
	g.send(http.MethodPut, "/just", payload(strings.Repeat("x", 1000)))
	if got := mirror.waitTake(t); got.uri != "/just" || len(got.body) != 1000 {
		t.Errorf("the mirror got %+v", got)
	}
	// Broken off by the client, and waiting to be asked for.
	conn := dialRaw(t, g.http)
	fmt.Fprintf(conn, "PUT /broken HTTP/1.1\r\nHost: %s\r\nContent-Length: 10\r\n\r\nhello", g.http)
	conn.Close()
	g.waitMirror(1, 0, map[string]int{"too_large": 2, "incomplete": 1})
	g.send(http.MethodPut, "/expect", payload("hello"), header("Expect", "100-continue"))
	g.waitMirror(1, 0, map[string]int{"too_large": 2, "incomplete": 1, "skipped": 1})
	if got := mirror.take(); len(got) > 0 {
		t.Errorf("the mirror got %+v", got)
	}
}

func TestMirrorLeavesStreamsAlone(t *testing.T) {
	t.Parallel()
	g := startGateway(t, settings{})
	mirror := newRecorder(t)
	settings := map[string]any{"target_url": mirror.url}
	g.create(route{Path: "/ws", TargetURL: echoUpstream(t), Mirror: settings})
	g.create(route{Path: "/grpc", Method: "POST", TargetURL: textUpstream(t, "fine"), Mirror: settings})
	if err := echoText(g.dialWebSocket("/ws")); err != nil {
		t.Error(err)
	}
	g.send(http.MethodPost, "/grpc", payload("x"), header("Content-Type", "application/grpc"))
	g.waitMirror(0, 0, map[string]int{"skipped": 2})

	// A stream of events is copied when it begins, not when it ends.
	received := make(chan struct{})
	events := newUpstream(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_ = http.NewResponseController(w).Flush()
		select {
		case <-received:
		case <-r.Context().Done():
		}
	})
	g.create(route{Path: "/events", TargetURL: events.URL, Mirror: settings})
	resp, err := g.client.Get("http://" + g.http + "/events")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got := mirror.waitTake(t); got.uri != "/events" {
		t.Errorf("the mirror got %+v", got)
	}
	close(received)
	_, _ = io.Copy(io.Discard, resp.Body)
}

func TestMirrorSample(t *testing.T) {
	t.Parallel()
	g := startGateway(t, settings{})
	const requests, sample = 1000, 0.3
	g.create(route{Path: "/x", TargetURL: textUpstream(t, "fine"), Mirror: map[string]any{"target_url": textUpstream(t, "thrown away"), "sample": sample}})
	for range requests {
		g.wantBody("/x", "fine")
	}
	var got mirrorStats
	eventually(t, startTimeout, "all copies are sent", func() error {
		if got = g.mirrorStats(); got.Waiting > 0 || got.Sent < requests/10 {
			return fmt.Errorf("the counters are %+v", got)
		}
		return nil
	})
	// Ten standard deviations, and what is being sent.
	if most := 10*math.Sqrt(requests*sample*(1-sample)) + 8; math.Abs(float64(got.Sent)-requests*sample) > most {
		t.Errorf("%d of %d requests were copied, want about %v", got.Sent, requests, requests*sample)
	}
}

func TestRefusedMirrors(t *testing.T) {
	t.Parallel()
	g := startGateway(t, settings{})
	for _, c := range []struct {
		field string
		value any
	}{
		{"target_url", ""},
		{"target_url", "10.0.0.9"},
		{"target_url", "http://10.0.0.9/{id}"},
		{"target_url", "http://169.254.169.254"},
		{"target_url", "http://" + g.admin},
		{"target_url", "http://user@10.0.0.9"},
		{"sample", 0},
		{"sample", 1.5},
		{"sample", "all"},
		{"body_max", 0},
		{"body_max", 1<<20 + 1},
		{"timeout", 61},
		{"colour", "red"},
	} {
		settings := map[string]any{"target_url": "http://10.0.0.9"}
		settings[c.field] = c.value
		p := g.refused(route{Path: "/x/{id}", TargetURL: "http://10.0.0.1", Mirror: settings}, http.StatusUnprocessableEntity)
		if len(p.Errors) != 1 || p.Errors[0].Location != "body.mirror."+c.field {
			t.Errorf("%s %v: the errors are %+v", c.field, c.value, p.Errors)
		}
	}
	p := g.refused(route{Path: "/x", TargetURL: "http://10.0.0.1", Mirror: map[string]any{"sample": 0.5}}, http.StatusUnprocessableEntity)
	if len(p.Errors) != 1 || p.Errors[0].Location != "body.mirror.target_url" {
		t.Errorf("the errors are %+v", p.Errors)
	}
	made := g.create(route{Path: "/x", TargetURL: "http://10.0.0.1", Mirror: map[string]any{"target_url": "http://10.0.0.9/b", "sample": 0.25, "body_max": 10, "timeout": 5}})
	if got := g.get(made.ID).Mirror; fmt.Sprint(got) != "map[body_max:10 sample:0.25 target_url:http://10.0.0.9/b timeout:5]" {
		t.Errorf("it is read as %v", got)
	}
}

func TestMirrorOfASite(t *testing.T) {
	t.Parallel()
	mirror, upstream := newRecorder(t), newRecorder(t)
	g := startGateway(t, settings{sites: fmt.Sprintf("http://site.test {\nbind 127.0.0.1\nisekai_mirror %s\nreverse_proxy %s\n}", mirror.url, upstream.url)})
	g.send(http.MethodPost, "/x", host("site.test"), payload("hello"))
	want, got := upstream.waitTake(t), mirror.waitTake(t)
	if got.body != "hello" || got.uri != want.uri || got.method != want.method || "http://"+got.host != mirror.url {
		t.Errorf("the mirror got %+v, the upstream %+v", got, want)
	}
	g.waitMirror(1, 0, nil)
}
