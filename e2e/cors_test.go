package e2e_test

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
)

const (
	pageOrigin  = "https://app.test"
	otherOrigin = "https://other.test"
)

// onlyPage is a cors that lets one page in.
func onlyPage(more map[string]any) map[string]any {
	policy := map[string]any{"origins": []string{pageOrigin}}
	maps.Copy(policy, more)
	return policy
}

// preflight asks whether a page may send a request with this method and these
// header fields.
func (g *gateway) preflight(target, origin, method string, fields ...string) answer {
	g.t.Helper()
	return g.send(http.MethodOptions, target, func(r *http.Request) {
		r.Header.Set("Origin", origin)
		r.Header.Set("Access-Control-Request-Method", method)
		if len(fields) > 0 {
			r.Header.Set("Access-Control-Request-Headers", strings.Join(fields, ","))
		}
	})
}

// corsFields returns the answer's fields of the protocol, and Vary.
func corsFields(a answer) map[string]string {
	fields := make(map[string]string)
	for name, values := range a.header {
		if name == "Vary" || strings.HasPrefix(name, "Access-Control-") {
			fields[name] = strings.Join(values, " | ")
		}
	}
	return fields
}

func wantFields(t *testing.T, what string, a answer, want map[string]string) {
	t.Helper()
	if got := corsFields(a); !maps.Equal(got, want) {
		t.Errorf("%s: %s has the fields\n%v, want\n%v", what, a, got, want)
	}
}

// opinionated is an upstream that has CORS fields of its own, all wrong.
func opinionated(t *testing.T) *recorder {
	rec := newRecorder(t)
	inner := rec.url
	rec.url = newUpstream(t, func(w http.ResponseWriter, r *http.Request) {
		req, err := http.NewRequestWithContext(r.Context(), r.Method, inner+r.RequestURI, r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		req.Header = r.Header.Clone()
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		defer resp.Body.Close()
		w.Header().Set("Access-Control-Allow-Origin", "*")
		w.Header().Set("Access-Control-Allow-Credentials", "true")
		w.Header().Set("Access-Control-Max-Age", "1")
		w.Header().Set("access-control-expose-headers", "X-Secret")
		w.Header().Add("Vary", "Accept-Encoding")
		w.Header().Add("Vary", "Cookie")
		w.Header().Set("X-Upstream", "yes")
		_, _ = io.Copy(w, resp.Body)
	}).URL
	return rec
}

func TestPreflight(t *testing.T) {
	t.Parallel()
	g := startGateway(t, settings{options: "plugins static_response headers"})
	rec := opinionated(t)
	g.create(route{Path: "/post", Method: "POST", TargetURL: rec.url, RateLimit: 1, CORS: onlyPage(map[string]any{
		"headers": []string{"content-type", "authorization"}, "expose_headers": []string{"X-Request-Id"}, "credentials": true, "max_age": 600,
	})})
	g.create(route{Path: "/open/*", Method: "*", TargetURL: rec.url, CORS: map[string]any{"headers": []string{"*"}, "private_network": true}})
	g.create(route{Path: "/closed", Method: "POST", TargetURL: rec.url, CORS: onlyPage(nil), Plugins: plugins(
		`{"handler":"static_response","status_code":401,"headers":{"Www-Authenticate":["Bearer"],"Access-Control-Allow-Origin":["*"]},"body":"no"}`)})
	g.create(route{Path: "/none", Method: "POST", TargetURL: rec.url})

	allowed := map[string]string{
		"Access-Control-Allow-Origin": pageOrigin, "Access-Control-Allow-Credentials": "true", "Access-Control-Allow-Methods": "POST",
		"Access-Control-Allow-Headers": "Content-Type, Authorization", "Access-Control-Max-Age": "600",
		"Vary": "Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
	}
	for range 5 { // more than the rate limit admits
		a := g.preflight("/post", pageOrigin, "POST", "content-type")
		if a.status != http.StatusNoContent || len(a.body) > 0 || a.header.Get("X-Request-Id") == "" || a.header.Get("RateLimit") != "" {
			t.Errorf("a preflight is answered %s %v", a, a.header)
		}
		wantFields(t, "preflight", a, allowed)
	}
	a := g.preflight("/post", otherOrigin, "POST")
	if p := wantProblem(t, a, http.StatusForbidden); !strings.Contains(p.Detail, "origin") {
		t.Errorf("the problem is %+v", p)
	}
	wantFields(t, "preflight of another origin", a, map[string]string{"Vary": allowed["Vary"]})

	a = g.preflight("/open/x?y", otherOrigin, "PROPFIND", "x-a", "x-b")
	wantFields(t, "open preflight", a, map[string]string{
		"Access-Control-Allow-Origin": "*", "Access-Control-Allow-Methods": "*", "Access-Control-Allow-Headers": "x-a,x-b",
		"Vary": allowed["Vary"] + ", Access-Control-Request-Private-Network",
	})
	if a := g.preflight("/closed", pageOrigin, "POST"); a.status != http.StatusNoContent {
		t.Errorf("before a plugin that refuses all, a preflight is answered %s", a)
	}
	a = g.send(http.MethodPost, "/closed", header("Origin", pageOrigin))
	if a.status != http.StatusUnauthorized || a.header.Get("Www-Authenticate") == "" {
		t.Errorf("the plugin's answer is %s", a)
	}
	wantFields(t, "a plugin's answer", a, map[string]string{"Access-Control-Allow-Origin": pageOrigin, "Vary": "Origin"})

	// What is no preflight, or asks about a route that has no cors, is a request
	// like any other.
	for what, c := range map[string]struct {
		status int
		got    answer
	}{
		"no Origin":                {http.StatusMethodNotAllowed, g.send(http.MethodOptions, "/post", header("Access-Control-Request-Method", "POST"))},
		"no method":                {http.StatusMethodNotAllowed, g.send(http.MethodOptions, "/post", header("Origin", pageOrigin))},
		"another method":           {http.StatusMethodNotAllowed, g.preflight("/post", pageOrigin, "PUT")},
		"a method in lower case":   {http.StatusMethodNotAllowed, g.preflight("/post", pageOrigin, "post")},
		"TRACE":                    {http.StatusMethodNotAllowed, g.preflight("/post", pageOrigin, "TRACE")},
		"no cors":                  {http.StatusMethodNotAllowed, g.preflight("/none", pageOrigin, "POST")},
		"no route":                 {http.StatusNotFound, g.preflight("/nothing", pageOrigin, "POST")},
		"a path that is no path":   {http.StatusBadRequest, g.preflight("/%2e%2e/post", pageOrigin, "POST")},
		"a path of many slashes":   {http.StatusBadRequest, g.preflight("//post", pageOrigin, "POST")},
		"a GET that looks like it": {http.StatusMethodNotAllowed, g.send(http.MethodGet, "/post", header("Origin", pageOrigin), header("Access-Control-Request-Method", "POST"))},
	} {
		if p := wantProblem(t, c.got, c.status); p.Status != c.status {
			t.Errorf("%s: the answer is %s", what, c.got)
		}
		wantFields(t, what, c.got, map[string]string{})
	}
	if got := rec.take(); len(got) > 0 {
		t.Errorf("the upstream has seen %+v", got)
	}
	if a := g.send(http.MethodOptions, "/open/x", header("Origin", pageOrigin)); a.status != http.StatusOK || len(rec.take()) != 1 {
		t.Errorf("an OPTIONS request is answered %s", a)
	}

	// None of the preflights was counted: one request is still admitted.
	if a := g.send(http.MethodPost, "/post", header("Origin", pageOrigin)); a.status != http.StatusOK {
		t.Errorf("the first request is answered %s", a)
	}
	readable := map[string]string{
		"Access-Control-Allow-Origin": pageOrigin, "Access-Control-Allow-Credentials": "true", "Access-Control-Expose-Headers": "X-Request-Id", "Vary": "Origin",
	}
	a = g.send(http.MethodPost, "/post", header("Origin", pageOrigin))
	wantProblem(t, a, http.StatusTooManyRequests)
	wantFields(t, "over the limit", a, readable)
	if a := g.preflight("/post", pageOrigin, "POST"); a.status != http.StatusNoContent {
		t.Errorf("over the limit a preflight is answered %s", a)
	}
}

// TestPreflightRoutes has preflights find the route of the request that they ask
// about.
func TestPreflightRoutes(t *testing.T) {
	t.Parallel()
	g := startGateway(t, settings{})
	rec := newRecorder(t)
	policy := func(name string) map[string]any {
		return onlyPage(map[string]any{"expose_headers": []string{name}, "headers": []string{name}})
	}
	g.create(route{Path: "/a", Method: "GET", TargetURL: rec.url, CORS: policy("X-Get")})
	g.create(route{Path: "/a", Method: "PUT", TargetURL: rec.url, CORS: policy("X-Put")})
	g.create(route{Path: "/a", Method: "DELETE", TargetURL: rec.url})
	g.create(route{Path: "/a", Method: "OPTIONS", TargetURL: rec.url})
	g.create(route{Path: "/a", Method: "PUT", TargetURL: rec.url, Headers: map[string]string{"X-Env": "beta"}, CORS: policy("X-Beta")})
	g.create(route{Path: "/a", Method: "PUT", TargetURL: rec.url, Query: map[string]string{"v": "2"}, CORS: policy("X-Query")})
	g.create(route{Host: "own.test", Path: "/a", Method: "PUT", TargetURL: rec.url, CORS: policy("X-Own")})

	for what, c := range map[string]struct {
		got  answer
		want string
	}{
		"GET":                  {g.preflight("/a", pageOrigin, "GET"), "X-Get"},
		"PUT":                  {g.preflight("/a", pageOrigin, "PUT"), "X-Put"},
		"PUT with a field":     {g.preflight("/a", pageOrigin, "PUT", "content-type", "x-env"), "X-Beta"},
		"PUT with another":     {g.preflight("/a", pageOrigin, "PUT", "content-type"), "X-Put"},
		"PUT with a parameter": {g.preflight("/a?v=2", pageOrigin, "PUT"), "X-Query"},
		"HEAD, served by GET":  {g.preflight("/a", pageOrigin, "HEAD"), "X-Get"},
	} {
		if got := c.got.header.Get("Access-Control-Allow-Headers"); c.got.status != http.StatusNoContent || got != c.want {
			t.Errorf("%s: the answer is %s with %q, want %q", what, c.got, got, c.want)
		}
	}
	own := g.send(http.MethodOptions, "/a", host("own.test"), header("Origin", pageOrigin), header("Access-Control-Request-Method", "PUT"))
	if got := own.header.Get("Access-Control-Allow-Headers"); got != "X-Own" {
		t.Errorf("the answer for another host is %s with %q", own, got)
	}
	if got := rec.take(); len(got) > 0 {
		t.Errorf("the upstream has seen %+v", got)
	}
	// DELETE's route leaves the matter to the upstream, by the route for OPTIONS.
	if a := g.preflight("/a", pageOrigin, "DELETE"); a.status != http.StatusOK || len(corsFields(a)) > 0 {
		t.Errorf("a preflight for DELETE is answered %s %v", a, a.header)
	}
	if got := rec.take(); len(got) != 1 || got[0].method != http.MethodOptions || got[0].header.Get("Access-Control-Request-Method") != "DELETE" {
		t.Errorf("the upstream has seen %+v", got)
	}

	// An edit is there at once, also for answers of a compiled route.
	r := g.create(route{Path: "/edit", Method: "PUT", TargetURL: rec.url, CORS: policy("X-One")})
	for _, name := range []string{"X-One", "X-Two"} {
		g.patch(r.ID, map[string]any{"cors": map[string]any{"headers": []string{name}}})
		if got := g.preflight("/edit", pageOrigin, "PUT").header.Get("Access-Control-Allow-Headers"); got != name {
			t.Errorf("after an edit the allowed header is %q, want %q", got, name)
		}
	}
	g.patch(r.ID, map[string]any{"cors": nil})
	if a := g.preflight("/edit", pageOrigin, "PUT"); a.status != http.StatusMethodNotAllowed {
		t.Errorf("without cors the preflight is answered %s", a)
	}
}

func TestCORSFields(t *testing.T) {
	t.Parallel()
	g := startGateway(t, settings{})
	rec := opinionated(t)
	exposed := map[string]any{"expose_headers": []string{"RateLimit", "X-Request-Id"}, "credentials": true}
	g.create(route{Path: "/page", TargetURL: rec.url, CORS: onlyPage(exposed)})
	g.create(route{Path: "/all", TargetURL: rec.url, CORS: map[string]any{}})
	g.create(route{Path: "/own", TargetURL: rec.url})
	g.create(route{Path: "/hidden", TargetURL: rec.url, CORS: onlyPage(nil), Plugins: plugins(
		`{"handler":"headers","request":{"delete":["Origin"]},"response":{"set":{"Access-Control-Allow-Origin":["*"]}}}`)})
	g.create(route{Path: "/renamed", TargetURL: rec.url, CORS: onlyPage(nil), Plugins: plugins(
		`{"handler":"headers","request":{"replace":{"Origin":[{"search":"app","replace":"other"}]}}}`)})
	g.create(route{Path: "/patterns", TargetURL: rec.url, CORS: map[string]any{"origins": []string{"https://*.app.test:8443", `~http://pr-[0-9]+\.test`}}})

	const vary = "Accept-Encoding, Cookie, Origin"
	page := map[string]string{
		"Access-Control-Allow-Origin": pageOrigin, "Access-Control-Allow-Credentials": "true",
		"Access-Control-Expose-Headers": "Ratelimit, X-Request-Id", "Vary": vary,
	}
	plain := map[string]string{"Access-Control-Allow-Origin": pageOrigin, "Vary": vary}
	nobody := map[string]string{"Vary": vary}
	for _, c := range []struct {
		path, origin string
		want         map[string]string
	}{
		{"/page", pageOrigin, page},
		{"/page", otherOrigin, nobody},
		{"/page", "", nobody},
		{"/page", "https://app.test.evil.test", nobody},
		{"/page", "null", nobody},
		{"/all", pageOrigin, map[string]string{"Access-Control-Allow-Origin": "*", "Vary": "Accept-Encoding | Cookie"}},
		{"/own", pageOrigin, map[string]string{
			"Access-Control-Allow-Origin": "*", "Access-Control-Allow-Credentials": "true", "Access-Control-Max-Age": "1",
			"Access-Control-Expose-Headers": "X-Secret", "Vary": "Accept-Encoding | Cookie",
		}},
		{"/hidden", pageOrigin, plain},
		{"/hidden", otherOrigin, nobody},
		{"/renamed", pageOrigin, plain},
		{"/patterns", "https://x.y.app.test:8443", map[string]string{"Access-Control-Allow-Origin": "https://x.y.app.test:8443", "Vary": vary}},
		{"/patterns", "https://app.test:8443", nobody},
		{"/patterns", "http://pr-17.test", map[string]string{"Access-Control-Allow-Origin": "http://pr-17.test", "Vary": vary}},
		{"/patterns", "http://pr-17.test.evil.test", nobody},
	} {
		a := g.send(http.MethodGet, c.path, func(r *http.Request) {
			if c.origin != "" {
				r.Header.Set("Origin", c.origin)
			}
		})
		if a.status != http.StatusOK || a.header.Get("X-Upstream") != "yes" {
			t.Errorf("%s from %q is answered %s", c.path, c.origin, a)
		}
		wantFields(t, c.path+" from "+c.origin, a, c.want)
	}
	for _, got := range rec.take() {
		if strings.HasPrefix(got.uri, "/hidden") && got.header.Get("Origin") != "" || got.uri == "/renamed" && got.header.Get("Origin") != otherOrigin {
			t.Errorf("behind a plugin the upstream has seen %+v", got)
		}
	}
}

// TestCORSOfErrors has pages read what went wrong, whoever says so.
func TestCORSOfErrors(t *testing.T) {
	t.Parallel()
	g := startGateway(t, settings{options: "max_concurrent 2"})
	second := 1
	held, release := make(chan struct{}, 2), make(chan struct{})
	holding := newUpstream(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/error" {
			w.Header().Set("Access-Control-Allow-Origin", otherOrigin)
			http.Error(w, "the upstream's own", http.StatusInternalServerError)
			return
		}
		held <- struct{}{}
		<-release
	})
	t.Cleanup(func() { close(release) })
	down := fmt.Sprintf("http://127.0.0.1:%d", freePort(t))
	cors := onlyPage(map[string]any{"expose_headers": []string{"Retry-After"}})
	g.create(route{Path: "/error", Method: "*", TargetURL: holding.URL, CORS: cors})
	g.create(route{Path: "/down", Method: "*", TargetURL: down, CORS: cors})
	g.create(route{Path: "/silent", Method: "*", TargetURL: "http://" + rawUpstream(t, silence), Timeout: &second, CORS: cors})
	g.create(route{Path: "/limited", Method: "*", TargetURL: down, RateLimit: 1, CORS: cors})
	g.create(route{Path: "/small", Method: "*", TargetURL: down, Limits: map[string]any{"body_max": 4}, CORS: cors})
	g.create(route{Path: "/plugin", Method: "*", TargetURL: down, Plugins: plugins(`{"handler":"request_body","max_size":4}`), CORS: cors})
	g.create(route{Path: "/rewritten", Method: "*", TargetURL: down, Plugins: plugins(`{"handler":"rewrite","uri":"/a/../b"}`), CORS: cors})
	g.create(route{Path: "/one", Method: "*", TargetURL: holding.URL, Timeout: forever, Limits: map[string]any{"max_concurrent": 1}, CORS: cors})
	g.create(route{Path: "/many", Method: "*", TargetURL: holding.URL, Timeout: forever, CORS: cors})
	db := openSQL(t, "sqlite://"+g.dir+"/isekai.db")
	execSQL(t, db, `INSERT INTO routes (path, method, target_url, spec) VALUES ('/broken', '*', '`+down+`', '{"cors": {"origins": ["`+pageOrigin+`"], "expose_headers": ["Retry-After"]}, "plugins": [{"handler": "file_server"}]}')`)
	execSQL(t, db, `INSERT INTO routes (path, method, target_url, spec) VALUES ('/bad', '*', '`+down+`', '{"cors": {"origins": ["app.test"]}}')`)
	g.waitStatus("/bad", http.StatusServiceUnavailable)

	readable := map[string]string{"Access-Control-Allow-Origin": pageOrigin, "Access-Control-Expose-Headers": "Retry-After", "Vary": "Origin"}
	check := func(path string, status int, change ...func(*http.Request)) {
		t.Helper()
		a := g.send(http.MethodPost, path, append(change, header("Origin", pageOrigin))...)
		if a.status != status {
			t.Errorf("%s is answered %s, want %d", path, a, status)
		}
		wantFields(t, path, a, readable)
		a = g.send(http.MethodPost, path, append(change, header("Origin", otherOrigin))...)
		wantFields(t, path+" from another origin", a, map[string]string{"Vary": "Origin"})
		if a := g.preflight(path, pageOrigin, "POST"); a.status != http.StatusNoContent {
			t.Errorf("a preflight for %s is answered %s", path, a)
		}
	}
	check("/error", http.StatusInternalServerError)
	check("/down", http.StatusBadGateway)
	check("/silent", http.StatusGatewayTimeout)
	g.send(http.MethodPost, "/limited")
	check("/limited", http.StatusTooManyRequests)
	check("/small", http.StatusRequestEntityTooLarge, payload("12345"))
	check("/plugin", http.StatusRequestEntityTooLarge, payload("12345"))
	check("/rewritten", http.StatusBadRequest)
	check("/broken", http.StatusServiceUnavailable)

	// A policy that can't be set up is nobody's, not everybody's.
	for _, a := range []answer{g.send(http.MethodPost, "/bad", header("Origin", pageOrigin)), g.preflight("/bad", pageOrigin, "POST")} {
		wantProblem(t, a, http.StatusServiceUnavailable)
		wantFields(t, "a bad policy", a, map[string]string{})
	}

	hold := func(path string) {
		t.Helper()
		go func() { _, _ = g.trySend(http.MethodPost, path) }()
		await(t, held, path+" is held")
	}
	hold("/one")
	check("/one", http.StatusServiceUnavailable)
	hold("/many")
	check("/many", http.StatusServiceUnavailable) // max_concurrent of the gateway
}

func TestRefusedCORS(t *testing.T) {
	t.Parallel()
	g := startGateway(t, settings{})
	for name, c := range map[string]struct {
		cors  map[string]any
		where []string
	}{
		"origin":                     {map[string]any{"origins": []string{pageOrigin, "app.test"}}, []string{"body.cors.origins[1]"}},
		"no origin":                  {map[string]any{"origins": []string{}}, []string{"body.cors.origins"}},
		"expression":                 {map[string]any{"origins": []string{"~https://(a"}}, []string{"body.cors.origins[0]"}},
		"all and one":                {map[string]any{"origins": []string{"*", pageOrigin}}, []string{"body.cors.origins[0]"}},
		"all with credentials":       {map[string]any{"origins": []string{"*"}, "credentials": true}, []string{"body.cors.origins[0]"}},
		"nobody with credentials":    {map[string]any{"credentials": true}, []string{"body.cors.origins"}},
		"anybody with credentials":   {map[string]any{"origins": []string{"~.*"}, "credentials": true}, []string{"body.cors.origins[0]"}},
		"method":                     {map[string]any{"methods": []string{"GET", "TRACE", "A B"}}, []string{"body.cors.methods[1]", "body.cors.methods[2]"}},
		"headers":                    {map[string]any{"headers": []string{"X A"}, "expose_headers": []string{"X-A", "X:B"}}, []string{"body.cors.headers[0]", "body.cors.expose_headers[1]"}},
		"age":                        {map[string]any{"max_age": 86401}, []string{"body.cors.max_age"}},
		"age as a text":              {map[string]any{"max_age": "10m"}, []string{"body.cors.max_age"}},
		"one origin, not a list":     {map[string]any{"origins": pageOrigin}, []string{"body.cors.origins"}},
		"a number among the origins": {map[string]any{"origins": []any{1}}, []string{"body.cors.origins[0]"}},
		"unknown field":              {map[string]any{"origin": pageOrigin}, []string{"body.cors.origin"}},
	} {
		p := g.refused(route{Path: "/x", TargetURL: "http://10.0.0.1", CORS: c.cors}, http.StatusUnprocessableEntity)
		var where []string
		for _, e := range p.Errors {
			where = append(where, e.Location)
		}
		slices.Sort(where)
		slices.Sort(c.where)
		if !slices.Equal(where, c.where) {
			t.Errorf("%s: the errors are %+v, want %q", name, p.Errors, c.where)
		}
	}
	if left := g.list(""); len(left) > 0 {
		t.Errorf("after all refusals there are routes: %+v", left)
	}

	made := g.create(route{Path: "/x", TargetURL: "http://10.0.0.1", CORS: onlyPage(nil)})
	if a := g.call(http.MethodPatch, fmt.Sprintf("/api/routes/%d", made.ID), map[string]any{"cors": map[string]any{"credentials": true, "origins": nil}}); a.status != http.StatusUnprocessableEntity {
		t.Errorf("credentials for everyone are answered %s", a)
	}
	if got := g.get(made.ID); !slices.Equal(got.CORS["origins"].([]any), []any{pageOrigin}) {
		t.Errorf("the route has become %+v", got)
	}
}
