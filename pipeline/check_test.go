package pipeline_test

import (
	"encoding/json"
	"errors"
	"net/url"
	"strings"
	"testing"

	_ "github.com/caddyserver/caddy/v2/modules/standard"
	"github.com/google/go-cmp/cmp"

	"github.com/isekai-gateway/isekai/pipeline"
	"github.com/isekai-gateway/isekai/routing"
	"github.com/isekai-gateway/isekai/store"
)

func TestCheck(t *testing.T) {
	t.Parallel()
	plugins := func(texts ...string) func(*store.Route) {
		return func(row *store.Route) {
			for _, text := range texts {
				row.Plugins = append(row.Plugins, json.RawMessage(text))
			}
		}
	}
	tests := []struct {
		name   string
		edit   func(*store.Route)
		fields []string // in order; none: it is accepted
	}{
		{"nothing but the required", func(*store.Route) {}, nil},
		{"all at once", func(row *store.Route) {
			row.Path, row.TargetURL, row.Method, row.Host = "x", "", "G T", "a b"
			row.RateLimit, row.Timeout = -1, -1
		}, []string{"path", "host", "method", "target_url", "rate_limit", "timeout"}},
		{"parameters are known though another field is wrong", func(row *store.Route) {
			row.Path, row.TargetURL, row.Method = "/{id}", "http://x/{id}", "?"
		}, []string{"method"}},
		{"name", func(row *store.Route) { row.Name = strings.Repeat("n", 201) }, []string{"name"}},
		{"labels", func(row *store.Route) { row.Labels = map[string]string{"": "x"} }, []string{"labels."}},
		{"window", func(row *store.Route) { row.Limits = &store.Limits{Window: 31*86400 + 1} }, []string{"limits.window"}},
		{"the longest window", func(row *store.Route) { row.Limits = &store.Limits{Window: 31 * 86400} }, nil},
		{"limit key", func(row *store.Route) { row.Limits = &store.Limits{Key: "{env.SECRET}"} }, []string{"limits.key"}},
		{"limit key of the request", func(row *store.Route) { row.Limits = &store.Limits{Key: "{http.request.header.X-Key}"} }, nil},
		{"body bound", func(row *store.Route) { row.Limits = &store.Limits{BodyMax: 1} }, nil},
		{"no body bound", func(row *store.Route) { row.Limits = &store.Limits{BodyMax: -1} }, nil},
		{"negative body bound", func(row *store.Route) { row.Limits = &store.Limits{BodyMax: -2} }, []string{"limits.body_max"}},
		{"enormous body bound", func(row *store.Route) { row.Limits = &store.Limits{BodyMax: 1<<40 + 1} }, []string{"limits.body_max"}},
		{"requests in flight", func(row *store.Route) { row.Limits = &store.Limits{MaxConcurrent: 1_000_000} }, nil},
		{"negative and enormous", func(row *store.Route) { row.Limits = &store.Limits{Window: -1, MaxConcurrent: -1} },
			[]string{"limits.window", "limits.max_concurrent"}},
		{"too many in flight", func(row *store.Route) { row.Limits = &store.Limits{MaxConcurrent: 1_000_001} }, []string{"limits.max_concurrent"}},
		{"cors for all", func(row *store.Route) { row.CORS = &store.CORS{} }, nil},
		{"cors", func(row *store.Route) {
			row.Method, row.CORS = "*", &store.CORS{Origins: []string{"https://app.test", "https://*.app.test", `~https://pr-\d+\.test`}, Credentials: true, MaxAge: -1}
		}, nil},
		{"cors with a method of no page", func(row *store.Route) { row.Method, row.CORS = "GET,TRACK", &store.CORS{} }, nil},
		{"bad cors", func(row *store.Route) {
			row.CORS = &store.CORS{
				Origins: []string{"https://a.test", "a.test", "~("}, Methods: []string{"TRACE"}, Headers: []string{"X-A", "X A"},
				ExposeHeaders: []string{""}, MaxAge: 86401,
			}
		}, []string{"cors.methods[0]", "cors.headers[1]", "cors.expose_headers[0]", "cors.origins[1]", "cors.origins[2]", "cors.max_age"}},
		{"cors for all with credentials", func(row *store.Route) { row.CORS = &store.CORS{Credentials: true} }, []string{"cors.origins"}},
		{"strip and rewrite", func(row *store.Route) {
			row.Path, row.TargetURL, row.StripPrefix = "/a/{id}", "http://x/{id}", true
		}, []string{"strip_prefix"}},
		{"protocol", func(row *store.Route) { row.Upstream = &store.Upstream{Protocol: "spdy"} }, []string{"upstream.protocol"}},
		{"HTTP/2 without TLS", func(row *store.Route) { row.Upstream = &store.Upstream{Protocol: "http2"} }, []string{"upstream.protocol"}},
		{"h2c with TLS", func(row *store.Route) {
			row.TargetURL, row.Upstream = "https://x", &store.Upstream{Protocol: "h2c"}
		}, []string{"upstream.protocol"}},
		{"TLS settings without TLS", func(row *store.Route) {
			row.Upstream = &store.Upstream{TLS: &store.UpstreamTLS{ServerName: "{x}", CA: "no PEM"}}
		}, []string{"upstream.tls", "upstream.tls.server_name", "upstream.tls.ca"}},
		{"metadata service", func(row *store.Route) { row.TargetURL = "http://169.254.169.254" }, []string{"target_url"}},

		{"default plugins", plugins(
			`{"handler":"headers","request":{"set":{"X-A":["{http.request.host}"]}}}`,
			`{"handler":"encode","encodings":{"gzip":{}}}`,
			`{"handler":"rewrite","uri":"/x{http.request.uri}"}`,
			`{"handler":"request_body","max_size":1000}`), nil},
		{"plugin that is not allowed", plugins(`{"handler":"file_server","root":"/"}`), []string{"plugins[0].handler"}},
		{"second plugin", plugins(`{"handler":"headers"}`, `{"handler":"static_response"}`), []string{"plugins[1].handler"}},
		{"nested plugin", plugins(`{"handler":"subroute","routes":[{"handle":[{"handler":"file_server"}]}]}`),
			[]string{"plugins[0].handler", "plugins[0].routes[0].handle[0].handler"}},
		{"no handler", plugins(`{"uri":"/"}`), []string{"plugins[0].handler"}},
		{"handler of another type", plugins(`{"handler":["headers"]}`), []string{"plugins[0].handler"}},
		{"no object", plugins(`"headers"`, `[]`, `null`), []string{"plugins[0]", "plugins[1]", "plugins[2]"}},
		{"a field named handler", plugins(`{"handler":"headers","request":{"set":{"handler":["x"]}}}`), nil},
		{"environment", plugins(`{"handler":"headers","response":{"set":{"X-A":["{env.HOME}"]}}}`), []string{"plugins[0].response.set.X-A[0]"}},
		{"environment in braces", plugins(`{"handler":"headers","response":{"set":{"X-A":["{{env.HOME}}"]}}}`), []string{"plugins[0].response.set.X-A[0]"}},
		{"environment in escapes", plugins(`{"handler":"headers","response":{"set":{"X-A":["\u007benv.HOME}"]}}}`), []string{"plugins[0].response.set.X-A[0]"}},
		{"file in a name", plugins(`{"handler":"headers","response":{"set":{"{file./etc/passwd}":["x"]}}}`), []string{"plugins[0].response.set.{file./etc/passwd}"}},
		{"system", plugins(`{"handler":"rewrite","uri":"/{system.hostname}"}`), []string{"plugins[0].uri"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			row := store.NewRoute("/a", "http://10.0.0.5")
			tt.edit(row)
			err := pipeline.Check(row, nil, nil)
			var errs store.FieldErrors
			if err != nil && !errors.As(err, &errs) {
				t.Fatalf("got %v", err)
			}
			var fields []string
			for _, e := range errs {
				fields = append(fields, e.Field)
				if e.Message == "" {
					t.Errorf("nothing is said about %s", e.Field)
				}
			}
			if diff := cmp.Diff(tt.fields, fields); diff != "" {
				t.Errorf("%v\n%s", err, diff)
			}
		})
	}
}

func TestCheckAllowList(t *testing.T) {
	t.Parallel()
	if err := pipeline.CheckAllowList(pipeline.DefaultPlugins); err != nil {
		t.Error(err)
	}
	if err := pipeline.CheckAllowList([]string{"headers", "nope"}); err == nil || !strings.Contains(err.Error(), `"nope"`) {
		t.Errorf("got %v", err)
	}
}

func FuzzSetPath(f *testing.F) {
	for _, path := range []string{"/", "/a/b", "/a%2Fb", "/a!b'(c)*", "/%21", "/caf%C3%A9", "/a;b=c,d"} {
		f.Add(path)
	}
	f.Fuzz(func(t *testing.T, path string) {
		canonical, err := routing.CanonicalPath(path)
		if err != nil {
			return
		}
		var u url.URL
		pipeline.SetPath(&u, canonical.Text)
		if got := u.EscapedPath(); got != canonical.Text {
			t.Errorf("%q is sent as %q", canonical.Text, got)
		}
	})
}
