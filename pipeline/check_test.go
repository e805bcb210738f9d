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
	sample := func(f float64) *float64 { return &f }
	rules := func(n int) []store.LimitRule {
		list := make([]store.LimitRule, n)
		for i := range list {
			list[i] = store.LimitRule{Name: string(rune('a' + i)), Limit: 1}
		}
		return list
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
		{"rules", func(row *store.Route) {
			row.RateLimit, row.Limits = 10, &store.Limits{Cost: 10, Headers: "legacy", DryRun: true, Rules: []store.LimitRule{
				{Name: "burst", Limit: 10, Window: 1}, {Name: "Day_1-.:", Limit: 1_000_000_000, Window: 31 * 86400, Key: "{http.auth.user.id}", Cost: 1_000_000},
			}}
		}, nil},
		{"rules without rate_limit", func(row *store.Route) {
			row.Limits = &store.Limits{Cost: 7, Rules: []store.LimitRule{{Name: "burst", Limit: 7}}}
		}, nil},
		{"seven rules", func(row *store.Route) { row.Limits = &store.Limits{Rules: rules(7)} }, nil},
		{"eight rules", func(row *store.Route) { row.Limits = &store.Limits{Rules: rules(8)} }, []string{"limits.rules"}},
		{"names of rules", func(row *store.Route) {
			row.Limits = &store.Limits{Rules: rules(6)}
			for i, name := range []string{"", "a b", "route", "consumer", "x", "x"} {
				row.Limits.Rules[i].Name = name
			}
		}, []string{"limits.rules[0].name", "limits.rules[1].name", "limits.rules[2].name", "limits.rules[3].name", "limits.rules[5].name"}},
		{"bounds of rules", func(row *store.Route) {
			row.Limits = &store.Limits{Cost: 1_000_001, Headers: "both", Rules: []store.LimitRule{
				{Name: "a", Limit: 0, Window: -1, Key: strings.Repeat("k", 1025), Cost: -1},
				{Name: "b", Limit: 1_000_000_001, Window: 31*86400 + 1, Key: "{env.SECRET}", Cost: 1_000_001},
			}}
		}, []string{
			"limits.cost", "limits.headers", "limits.rules[0].limit", "limits.rules[0].window", "limits.rules[0].key", "limits.rules[0].cost",
			"limits.rules[1].limit", "limits.rules[1].window", "limits.rules[1].cost", "limits.rules[1].key",
		}},
		{"costs that no limit admits", func(row *store.Route) {
			row.RateLimit, row.Limits = 4, &store.Limits{Cost: 5, Rules: []store.LimitRule{
				{Name: "a", Limit: 4}, {Name: "b", Limit: 4, Cost: 4}, {Name: "c", Limit: 5, Cost: 6},
			}}
		}, []string{"limits.cost", "limits.rules[0].cost", "limits.rules[2].cost"}},
		{"body bound", func(row *store.Route) { row.Limits = &store.Limits{BodyMax: 1} }, nil},
		{"no body bound", func(row *store.Route) { row.Limits = &store.Limits{BodyMax: -1} }, nil},
		{"negative body bound", func(row *store.Route) { row.Limits = &store.Limits{BodyMax: -2} }, []string{"limits.body_max"}},
		{"enormous body bound", func(row *store.Route) { row.Limits = &store.Limits{BodyMax: 1<<40 + 1} }, []string{"limits.body_max"}},
		{"requests in flight", func(row *store.Route) { row.Limits = &store.Limits{MaxConcurrent: 1_000_000} }, nil},
		{"negative and enormous", func(row *store.Route) { row.Limits = &store.Limits{Window: -1, MaxConcurrent: -1} },
			[]string{"limits.window", "limits.max_concurrent"}},
		{"too many in flight", func(row *store.Route) { row.Limits = &store.Limits{MaxConcurrent: 1_000_001} }, []string{"limits.max_concurrent"}},
		{"auth", func(row *store.Route) { row.Auth = &store.Auth{Any: []string{"api_key"}, Groups: []string{"a"}} }, nil},
		{"auth by nothing", func(row *store.Route) { row.Auth = new(store.Auth) }, []string{"auth.any"}},
		{"auth that is not set up", func(row *store.Route) {
			row.Auth = &store.Auth{Any: []string{"api_key", "basic", "x"}, Groups: []string{"a"}, Anonymous: true}
		}, []string{"auth.any[1]", "auth.any[2]", "auth.groups"}},
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

		{"mirror", func(row *store.Route) {
			row.Mirror = &store.Mirror{TargetURL: "https://next.example.com/base", Sample: sample(0.5), BodyMax: 1 << 20, Timeout: 60}
		}, nil},
		{"mirror without a target", func(row *store.Route) { row.Mirror = new(store.Mirror) }, []string{"mirror.target_url"}},
		{"mirror of a parameter", func(row *store.Route) {
			row.Path, row.Mirror = "/a/{id}", &store.Mirror{TargetURL: "http://10.0.0.9/{id}"}
		}, []string{"mirror.target_url"}},
		{"mirror to the metadata service", func(row *store.Route) {
			row.Mirror = &store.Mirror{TargetURL: "http://169.254.169.254"}
		}, []string{"mirror.target_url"}},
		{"mirror and its bounds", func(row *store.Route) {
			row.Mirror = &store.Mirror{TargetURL: "10.0.0.9", Sample: sample(0), BodyMax: 1<<20 + 1, Timeout: 61}
		}, []string{"mirror.target_url", "mirror.sample", "mirror.body_max", "mirror.timeout"}},
		{"default plugins", plugins(
			`{"handler":"headers","request":{"set":{"X-A":["{http.request.host}"]}}}`,
			`{"handler":"encode","encodings":{"gzip":{},"zstd":{"level":"better"}}}`,
			`{"handler":"rewrite","uri":"/x{http.request.uri}"}`,
			`{"handler":"request_body","max_size":1000}`,
			`{"handler":"subroute","routes":[{"match":[{"client_ip":{"ranges":["10.0.0.0/8"]},"not":[{"path":["/a"]},{"header":{"X-A":null}}]}],
				"handle":[{"handler":"error","status_code":403}]}],"errors":{"routes":[{"handle":[{"handler":"static_response","body":"{\"a\":{}}"}]}]}}`,
			`{"handler":"intercept","handle_response":[{"match":{"status_code":[5]},"routes":[{"handle":[{"handler":"static_response"}]}]}]}`,
			`{"handler":"authentication","providers":{"http_basic":{"accounts":[{"username":"bob","password":"`+cheapHash+`"}],"hash":{"algorithm":"bcrypt"},"hash_cache":{}}}}`,
			`{"handler":"isekai_forward_auth","url":"https://auth.example.com/verify?rd=x","copy_headers":["X-User","X-Id>X-User-Id"],"timeout":"2s","on_error":"allow"}`), nil},
		{"inner modules", plugins(`{"handler":"subroute","routes":[{"match":[{"client_ip":{"ranges":["::1"]},"header":{"A":["b"]},
			"header_regexp":{"A":{"pattern":"b"}},"host":["a"],"method":["GET"],"not":[{"path":["/*"]}],"path":["/a"],"path_regexp":{"name":"p","pattern":"a"},
			"protocol":"grpc","query":{"a":["*"]},"remote_ip":{"ranges":["::1"]},"tls":{"handshake_complete":true}}],"handle":[]}]}`), nil},
		{"plugin that is not allowed", plugins(`{"handler":"file_server","root":"/"}`), []string{"plugins[0].handler"}},
		{"second plugin", plugins(`{"handler":"headers"}`, `{"handler":"templates"}`), []string{"plugins[1].handler"}},
		{"this gateway", plugins(`{"handler":"isekai"}`), []string{"plugins[0].handler"}},
		{"a handler by its whole id", plugins(`{"handler":"http.handlers.headers"}`), []string{"plugins[0].handler"}},
		{"a handler in capitals", plugins(`{"handler":"Headers"}`), []string{"plugins[0].handler"}},
		{"the key handler in capitals", plugins(`{"Handler":"file_server"}`), []string{"plugins[0].handler"}},
		{"a second key handler in capitals", plugins(`{"handler":"headers","Handler":"file_server"}`), []string{"plugins[0]"}},
		{"the key handler twice", plugins(`{"handler":"headers","handler":"file_server"}`, `{"handler":"file_server","handler":"headers"}`), []string{"plugins[0]", "plugins[1]"}},
		{"the key routes twice", plugins(`{"handler":"subroute","routes":[{"handle":[{"handler":"file_server"}]}],"routes":[]}`), []string{"plugins[0]"}},
		{"the key routes twice, once escaped", plugins(`{"handler":"subroute","routes":[],"\u0072outes":[]}`), []string{"plugins[0]"}},
		{"the key routes in two spellings", plugins(`{"handler":"subroute","ROUTES":[{"handle":[{"handler":"file_server"}]}]}`,
			`{"handler":"subroute","routes":[{"match":[{}]}],"Routes":[{"match":[{"file":{}}]}]}`), []string{"plugins[0].routes[0].handle[0].handler", "plugins[1].routes[0].match[0].file"}},
		{"the keys of a route in two spellings", plugins(`{"handler":"subroute","routes":[{"match":[{"path":["/"]}],"MATCH":[{"expression":"true"}]}]}`), []string{"plugins[0].routes[0].match[0].expression"}},
		{"nested", plugins(`{"handler":"subroute","routes":[{"handle":[{"handler":"headers"},{"handler":"file_server"}]}]}`), []string{"plugins[0].routes[0].handle[1].handler"}},
		{"nested twice", plugins(`{"handler":"subroute","routes":[{"handle":[{"handler":"subroute","routes":[{},{"handle":[{"handler":"reverse_proxy"}]}]}]}]}`),
			[]string{"plugins[0].routes[0].handle[0].routes[1].handle[0].handler"}},
		{"nested in errors", plugins(`{"handler":"subroute","routes":[],"errors":{"routes":[{"handle":[{"handler":"templates"}]}]}}`), []string{"plugins[0].errors.routes[0].handle[0].handler"}},
		{"nested in an answer's handling", plugins(`{"handler":"intercept","handle_response":[{"routes":[{"handle":[{"handler":"invoke"}]}]}]}`),
			[]string{"plugins[0].handle_response[0].routes[0].handle[0].handler"}},
		{"nested too deep", plugins(strings.Repeat(`{"handler":"subroute","routes":[{"handle":[`, 16) + `{"handler":"headers"}` + strings.Repeat(`]}]}`, 16)),
			[]string{"plugins[0]" + strings.Repeat(".routes[0].handle[0]", 16)}},
		{"CEL", plugins(`{"handler":"subroute","routes":[{"match":[{"expression":"ph(req, 'en' + 'v.HOME') != ''"}]}]}`), []string{"plugins[0].routes[0].match[0].expression"}},
		{"file matcher", plugins(`{"handler":"subroute","routes":[{"match":[{"path":["/"]},{"file":{"root":"/","try_files":["etc/passwd"]}}]}]}`), []string{"plugins[0].routes[0].match[1].file"}},
		{"matcher that looks placeholders up", plugins(`{"handler":"subroute","routes":[{"match":[{"vars":{"{}env.HOME}":["/"]}},{"vars_regexp":{"{}env.HOME}":{"pattern":"(.*)"}}}]}]}`),
			[]string{"plugins[0].routes[0].match[0].vars", "plugins[0].routes[0].match[1].vars_regexp"}},
		{"matcher in not", plugins(`{"handler":"subroute","routes":[{"match":[{"not":[{"not":[{"path":["/"]},{"file":{}}]}]}]}]}`), []string{"plugins[0].routes[0].match[0].not[0].not[1].file"}},
		{"matcher in capitals", plugins(`{"handler":"subroute","routes":[{"match":[{"Path":["/"]}]}]}`), []string{"plugins[0].routes[0].match[0].Path"}},
		{"matcher in an error route", plugins(`{"handler":"subroute","errors":{"routes":[{"match":[{"expression":"true"}]}]}}`), []string{"plugins[0].errors.routes[0].match[0].expression"}},
		{"matcher null", plugins(`{"handler":"subroute","routes":[{"match":[{"path_regexp":null}]}]}`), []string{"plugins[0].routes[0].match[0].path_regexp"}},
		{"handler null", plugins(`{"handler":"subroute","routes":[{"handle":[null]}]}`), []string{"plugins[0].routes[0].handle[0]"}},
		{"encoder", plugins(`{"handler":"encode","encodings":{"gzip":{},"br":{}}}`), []string{"plugins[0].encodings.br"}},
		{"provider", plugins(`{"handler":"authentication","providers":{"jwt":{}}}`), []string{"plugins[0].providers.jwt"}},
		{"hash", plugins(`{"handler":"authentication","providers":{"http_basic":{"hash":{"algorithm":"argon2id"},"accounts":[]}}}`), []string{"plugins[0].providers.http_basic.hash.algorithm"}},
		{"hash in two spellings", plugins(`{"handler":"authentication","providers":{"http_basic":{"hash":{"algorithm":"bcrypt"},"HASH":{"algorithm":"argon2id"}}}}`,
			`{"handler":"authentication","providers":{"http_basic":{"hash":{"algorithm":"bcrypt","Algorithm":"argon2id"}}}}`),
			[]string{"plugins[0].providers.http_basic.HASH.algorithm", "plugins[1].providers.http_basic.hash"}},
		{"passwords", plugins(`{"handler":"authentication","providers":{"http_basic":{"accounts":[
			{"username":"a","password":"` + cheapHash + `"},{"username":"b","password":"plain"},{"username":"c","password":"{env.SECRET}"},
			{"username":"d","password":"$2a$15$4oDF/yfJWVpkYNsQAz9jmeFL3ygRsRpSAKgLKLyhNNhkCBtm22EFS"},
			{"username":"e","password":"JDJhJDMxJDRvREYveWZKV1Zwa1lOc1FBejlqbWVGTDN5Z1JzUnBTQUtnTEtMeWhOTmhrQ0J0bTIyRUZT"}]}}}`),
			[]string{"plugins[0].providers.http_basic.accounts[1].password", "plugins[0].providers.http_basic.accounts[2].password",
				"plugins[0].providers.http_basic.accounts[3].password", "plugins[0].providers.http_basic.accounts[4].password",
				"plugins[0].providers.http_basic.accounts[2].password"}},
		{"forward auth", plugins(`{"handler":"isekai_forward_auth","url":"http://169.254.169.254/","copy_headers":["A","b c"],"timeout":-1,"on_error":"open"}`, `{"handler":"isekai_forward_auth"}`),
			[]string{"plugins[0].url", "plugins[0].copy_headers[1]", "plugins[0].timeout", "plugins[0].on_error", "plugins[1].url"}},
		{"forward auth in a subroute", plugins(`{"handler":"subroute","routes":[{"handle":[{"handler":"isekai_forward_auth","url":"unix//run/x.sock"}]}]}`), []string{"plugins[0].routes[0].handle[0].url"}},
		{"unknown field", plugins(`{"handler":"headers","respnse":{}}`, `{"handler":"subroute","routes":[{"handle":[{"handler":"error","why":""}]}]}`),
			[]string{"plugins[0]", "plugins[1].routes[0].handle[0]"}},
		{"no handler", plugins(`{"uri":"/"}`), []string{"plugins[0].handler"}},
		{"handler of another type", plugins(`{"handler":["headers"]}`), []string{"plugins[0].handler"}},
		{"no object", plugins(`"headers"`, `[]`, `null`), []string{"plugins[0]", "plugins[1]", "plugins[2]"}},
		{"a field named handler", plugins(`{"handler":"headers","request":{"set":{"handler":["x"]}}}`), nil},
		{"environment", plugins(`{"handler":"headers","response":{"set":{"X-A":["{env.HOME}"]}}}`), []string{"plugins[0].response.set.X-A[0]"}},
		{"environment in braces", plugins(`{"handler":"headers","response":{"set":{"X-A":["{{env.HOME}}"]}}}`), []string{"plugins[0].response.set.X-A[0]"}},
		{"environment in escapes", plugins(`{"handler":"headers","response":{"set":{"X-A":["\u007benv.HOME}"]}}}`), []string{"plugins[0].response.set.X-A[0]"}},
		{"file in a name", plugins(`{"handler":"headers","response":{"set":{"{file./etc/passwd}":["x"]}}}`), []string{"plugins[0].response.set.{file./etc/passwd}"}},
		{"system", plugins(`{"handler":"rewrite","uri":"/{system.hostname}"}`), []string{"plugins[0].uri"}},
		{"the host's address", plugins(`{"handler":"rewrite","uri":"/{http.request.local.host}"}`), []string{"plugins[0].uri"}},
		{"a whole body", plugins(`{"handler":"headers","request":{"set":{"X-A":["{http.request.body}"]}}}`), []string{"plugins[0].request.set.X-A[0]"}},
		{"environment by way of the path", plugins(`{"handler":"rewrite","uri":"env.HOME"}`, `{"handler":"rewrite","uri":"/{{http.request.uri.path}}"}`), []string{"plugins[1].uri"}},
		{"environment by parts", plugins(`{"handler":"rewrite","uri":"v.HOME"}`, `{"handler":"subroute","routes":[{"handle":[{"handler":"rewrite","uri":"?a={en{http.request.uri.path}}"}]}]}`), []string{"plugins[1].routes[0].handle[0].uri"}},
		{"environment in a matcher", plugins(`{"handler":"subroute","routes":[{"match":[{"client_ip":{"ranges":["{env.HOME}"]}}]}]}`), []string{"plugins[0].routes[0].match[0].client_ip.ranges[0]"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			row := store.NewRoute("/a", "http://10.0.0.5")
			tt.edit(row)
			wantFields(t, pipeline.Check(row, nil, nil, nil), tt.fields)
		})
	}
}

// wantFields checks which fields an error names, in order.
func wantFields(t *testing.T, err error, want []string) {
	t.Helper()
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
	if diff := cmp.Diff(want, fields); diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
}

// cheapHash is a password hashed at bcrypt's least cost.
const cheapHash = "$2a$04$4oDF/yfJWVpkYNsQAz9jmeFL3ygRsRpSAKgLKLyhNNhkCBtm22EFS"

// TestCheckAllowed has the configuration allow more.
func TestCheckAllowed(t *testing.T) {
	t.Parallel()
	const (
		vars  = `{"handler":"subroute","routes":[{"match":[{"vars":{"{http.isekai.param.id}":["1"]}}],"handle":[{"handler":"headers"}]}]}`
		proxy = `{"handler":"reverse_proxy","upstreams":[{"dial":"10.0.0.5:80"}],"transport":{"protocol":"http","tls":{}}}`
		argon = `{"handler":"authentication","providers":{"http_basic":{"hash":{"algorithm":"argon2id"},"accounts":[{"username":"a","password":"$argon2id$v=19"}]}}}`
		stray = `{"handler":"vars","handler_":"x","sub":{"handler":"file_server"}}`
	)
	tests := []struct {
		name, plugin string
		allowed      []string
		fields       []string
	}{
		{"a handler", `{"handler":"file_server","root":"/srv"}`, []string{"file_server"}, nil},
		{"a handler by its whole id", `{"handler":"file_server","root":"/srv"}`, []string{"http.handlers.file_server"}, nil},
		{"the default ones are replaced", `{"handler":"headers"}`, []string{"file_server"}, []string{"plugins[0].handler"}},
		{"a matcher", vars, []string{"subroute", "headers", "http.matchers.vars"}, nil},
		{"no matcher", vars, []string{"subroute", "headers"}, []string{"plugins[0].routes[0].match[0].vars"}},
		{"a matcher without the namespace", vars, []string{"subroute", "headers", "vars"}, []string{"plugins[0].routes[0].match[0].vars"}},
		{"a transport", proxy, []string{"reverse_proxy", "http.reverse_proxy.transport.http"}, nil},
		{"no transport", proxy, []string{"reverse_proxy"}, []string{"plugins[0].transport.protocol"}},
		{"a hash", argon, []string{"authentication", "http.authentication.hashes.argon2id"}, nil},
		{"a handler where a module might load it by itself", stray, []string{"vars", "file_server"}, []string{"plugins[0].sub.handler"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if err := pipeline.CheckAllowList(tt.allowed); err != nil {
				t.Fatal(err)
			}
			row := store.NewRoute("/a", "http://10.0.0.5")
			row.Plugins = []json.RawMessage{json.RawMessage(tt.plugin)}
			err := pipeline.Check(row, tt.allowed, nil, nil)
			errs, _ := errors.AsType[store.FieldErrors](err)
			var fields []string
			for _, e := range errs {
				fields = append(fields, e.Field)
			}
			if diff := cmp.Diff(tt.fields, fields); diff != "" {
				t.Errorf("%v\n%s", err, diff)
			}
		})
	}
}

// FuzzCheckPlugins checks that no document with a module that is not allowed is
// accepted, whatever it looks like, and that none makes the check panic.
func FuzzCheckPlugins(f *testing.F) {
	for _, seed := range []string{
		`{"handler":"headers","request":{"set":{"Handler":["x"]}}}`,
		`{"handler":"subroute","routes":[{"match":[{"not":[{"path":["/a"]}]}],"handle":[{"handler":"error"}]}],"errors":{"routes":[]}}`,
		`{"handler":"subroute","Routes":[{"Handle":[{"handler":"file_server"}]}]}`,
		`{"handler":"intercept","handle_response":[{"match":{"status_code":[5]},"routes":[{"handle":[{"handler":"static_response"}]}]}]}`,
		`{"handler":"authentication","providers":{"http_basic":{"hash":{"algorithm":"bcrypt"},"accounts":[{"username":"a","password":"` + cheapHash + `"}]}}}`,
		`{"handler":"encode","encodings":{"gzip":{"level":5}},"match":{"headers":{"A":["b"]}}}`,
		`{"handler":"rewrite","uri":"/{http.request.uri.path}","query":{"set":[{"key":"a","val":"b"}]}}`,
		`{"handler":"isekai_forward_auth","url":"http://10.0.0.5/"}`,
	} {
		f.Add(seed)
	}
	names := map[string]bool{"bcrypt": true}
	for _, name := range pipeline.DefaultPlugins {
		names[name] = true
	}
	f.Fuzz(func(t *testing.T, text string) {
		row := store.NewRoute("/a", "http://10.0.0.5")
		row.Plugins = []json.RawMessage{json.RawMessage(text)}
		if pipeline.Check(row, nil, nil, nil) != nil {
			return
		}
		var document any
		if err := json.Unmarshal([]byte(text), &document); err != nil {
			t.Fatalf("%q is accepted: %v", text, err)
		}
		var walk func(any)
		walk = func(value any) {
			switch v := value.(type) {
			case map[string]any:
				for key, inner := range v {
					name, isText := inner.(string)
					switch key = strings.ToLower(key); {
					case isText && (key == "handler" || key == "algorithm") && !names[name]:
						t.Errorf("%q is accepted with %s %q", text, key, name)
					case key == "expression", key == "file", key == "vars", key == "vars_regexp":
						// A header field or a parameter may be called so, and has a list.
						if _, isList := inner.([]any); !isList && inner != nil {
							t.Errorf("%q is accepted with %s", text, key)
						}
					case key == "header_regexp":
						continue // its keys are fields, and their values patterns
					}
					walk(inner)
				}
			case []any:
				for _, inner := range v {
					walk(inner)
				}
			case string:
				for _, prefix := range []string{"{env.", "{file.", "{system."} {
					if strings.Contains(v, prefix) {
						t.Errorf("%q is accepted with %s", text, prefix)
					}
				}
			}
		}
		walk(document)
	})
}

func TestCheckAllowList(t *testing.T) {
	t.Parallel()
	if err := pipeline.CheckAllowList(pipeline.DefaultPlugins); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"http.matchers.nope", "matchers.path", "http.handlers", ""} {
		if err := pipeline.CheckAllowList([]string{name}); err == nil {
			t.Errorf("%q is taken for a module", name)
		}
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
