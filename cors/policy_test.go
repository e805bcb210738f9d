package cors_test

import (
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/isekai-gateway/isekai/cors"
)

const (
	varyPreflight = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers"
	app           = "https://app.example.com"
)

func TestIsPreflight(t *testing.T) {
	t.Parallel()
	const method = "Access-Control-Request-Method"
	tests := []struct {
		name   string
		method string
		header http.Header
		want   bool
	}{
		{"preflight", "OPTIONS", http.Header{"Origin": {app}, method: {"PUT"}}, true},
		{"of an opaque origin", "OPTIONS", http.Header{"Origin": {"null"}, method: {"GET"}}, true},
		{"without a method", "OPTIONS", http.Header{"Origin": {app}, "Access-Control-Request-Headers": {"x-a"}}, false},
		{"with an empty method", "OPTIONS", http.Header{"Origin": {app}, method: {""}}, false},
		{"without an origin", "OPTIONS", http.Header{method: {"PUT"}}, false},
		{"with an empty origin", "OPTIONS", http.Header{"Origin": {""}, method: {"PUT"}}, false},
		{"plain OPTIONS", "OPTIONS", http.Header{}, false},
		{"another method", "GET", http.Header{"Origin": {app}, method: {"PUT"}}, false},
		{"lower case", "options", http.Header{"Origin": {app}, method: {"PUT"}}, false},
	}
	for _, test := range tests {
		if got := cors.IsPreflight(request(test.method, test.header)); got != test.want {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
}

func TestPreflight(t *testing.T) {
	t.Parallel()
	asking := func(origin, method string, headers ...string) http.Header {
		h := http.Header{"Origin": {origin}, "Access-Control-Request-Method": {method}}
		if headers != nil {
			h["Access-Control-Request-Headers"] = headers
		}
		return h
	}
	origins := []string{app}
	tests := []struct {
		name    string
		config  cors.Config
		request http.Header
		before  http.Header
		refused bool
		want    http.Header
	}{
		{
			name: "anything", request: asking("https://any.test", "GET"),
			want: http.Header{"Access-Control-Allow-Origin": {"*"}, "Access-Control-Allow-Methods": {"GET, HEAD, POST"}},
		},
		{
			name: "an allowed origin", config: cors.Config{Origins: origins, Methods: []string{"PUT", "DELETE"}}, request: asking(app, "PUT"),
			want: http.Header{"Access-Control-Allow-Origin": {app}, "Access-Control-Allow-Methods": {"PUT, DELETE"}},
		},
		{
			name: "another origin", config: cors.Config{Origins: origins, Credentials: true, MaxAge: 5, PrivateNetwork: true, Headers: []string{"X-A"}},
			request: asking("https://evil.test", "PUT"), refused: true,
			before: http.Header{"Access-Control-Allow-Origin": {"*"}, "Server": {"Caddy"}},
			want:   http.Header{"Server": {"Caddy"}, "Vary": {varyPreflight + ", Access-Control-Request-Private-Network"}},
		},
		{
			name: "a method that is not allowed", config: cors.Config{Origins: origins, Methods: []string{"PUT"}}, request: asking(app, "PATCH"),
			want: http.Header{"Access-Control-Allow-Origin": {app}, "Access-Control-Allow-Methods": {"PUT"}},
		},
		{
			name: "any method", config: cors.Config{Origins: origins, Methods: []string{"*"}}, request: asking(app, "PATCH"),
			want: http.Header{"Access-Control-Allow-Origin": {app}, "Access-Control-Allow-Methods": {"*"}},
		},
		{
			name: "everything", request: func() http.Header {
				h := asking(app, "PUT", "x-a,x-c")
				h.Set("Access-Control-Request-Private-Network", "true")
				return h
			}(),
			config: cors.Config{
				Origins: origins, Methods: []string{"PUT"}, Headers: []string{"x-a", "X-B", "X-A"}, ExposeHeaders: []string{"X-E"},
				Credentials: true, MaxAge: 600, PrivateNetwork: true,
			},
			want: http.Header{
				"Access-Control-Allow-Origin": {app}, "Access-Control-Allow-Methods": {"PUT"}, "Access-Control-Allow-Headers": {"X-A, X-B"},
				"Access-Control-Allow-Credentials": {"true"}, "Access-Control-Max-Age": {"600"}, "Access-Control-Allow-Private-Network": {"true"},
				"Vary": {varyPreflight + ", Access-Control-Request-Private-Network"},
			},
		},
		{
			name: "a private network that is not asked for", config: cors.Config{Origins: origins, PrivateNetwork: true}, request: asking(app, "GET"),
			want: http.Header{
				"Access-Control-Allow-Origin": {app}, "Access-Control-Allow-Methods": {"GET, HEAD, POST"},
				"Vary": {varyPreflight + ", Access-Control-Request-Private-Network"},
			},
		},
		{
			name: "a private network that is not allowed", config: cors.Config{Origins: origins},
			request: http.Header{"Origin": {app}, "Access-Control-Request-Method": {"GET"}, "Access-Control-Request-Private-Network": {"true"}},
			want:    http.Header{"Access-Control-Allow-Origin": {app}, "Access-Control-Allow-Methods": {"GET, HEAD, POST"}},
		},
		{
			name: "not to be kept", config: cors.Config{MaxAge: -1}, request: asking(app, "GET"),
			want: http.Header{"Access-Control-Allow-Origin": {"*"}, "Access-Control-Allow-Methods": {"GET, HEAD, POST"}, "Access-Control-Max-Age": {"0"}},
		},
		{
			name: "any header", config: cors.Config{Headers: []string{"*"}}, request: asking(app, "GET", "authorization,x-a"),
			want: http.Header{
				"Access-Control-Allow-Origin": {"*"}, "Access-Control-Allow-Methods": {"GET, HEAD, POST"},
				"Access-Control-Allow-Headers": {"authorization,x-a"},
			},
		},
		{
			name: "any header, split by a proxy", config: cors.Config{Headers: []string{"*"}}, request: asking(app, "GET", "authorization\t", " ", " x-a"),
			want: http.Header{
				"Access-Control-Allow-Origin": {"*"}, "Access-Control-Allow-Methods": {"GET, HEAD, POST"},
				"Access-Control-Allow-Headers": {"authorization\t, , x-a"},
			},
		},
		{
			name: "any header, but none asked for", config: cors.Config{Headers: []string{"*"}}, request: asking(app, "GET"),
			want: http.Header{"Access-Control-Allow-Origin": {"*"}, "Access-Control-Allow-Methods": {"GET, HEAD, POST"}},
		},
		{
			name: "any header, but not anything", config: cors.Config{Headers: []string{"*"}}, request: asking(app, "GET", "x-a,<script>"),
			want: http.Header{"Access-Control-Allow-Origin": {"*"}, "Access-Control-Allow-Methods": {"GET, HEAD, POST"}},
		},
		{
			name: "any header, but not endlessly", config: cors.Config{Headers: []string{"*"}}, request: asking(app, "GET", strings.Repeat("x-a,", 1100)+"x-a"),
			want: http.Header{"Access-Control-Allow-Origin": {"*"}, "Access-Control-Allow-Methods": {"GET, HEAD, POST"}},
		},
		{
			name: "Vary of others", config: cors.Config{Origins: origins}, request: asking(app, "GET"),
			before: http.Header{"Vary": {"Accept-Encoding", "origin"}},
			want: http.Header{
				"Access-Control-Allow-Origin": {app}, "Access-Control-Allow-Methods": {"GET, HEAD, POST"},
				"Vary": {"Accept-Encoding, origin, Access-Control-Request-Method, Access-Control-Request-Headers"},
			},
		},
	}
	for _, test := range tests {
		p := mustNew(t, test.config)
		h := test.before.Clone()
		if h == nil {
			h = http.Header{}
		}
		if allowed := p.Preflight(h, request(http.MethodOptions, test.request)); allowed == test.refused {
			t.Errorf("%s: allowed %v", test.name, allowed)
		}
		if test.want["Vary"] == nil {
			test.want["Vary"] = []string{varyPreflight}
		}
		if diff := cmp.Diff(test.want, h); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.name, diff)
		}
	}
}

func TestApply(t *testing.T) {
	t.Parallel()
	origins := []string{app}
	from := func(origin string) http.Header { return http.Header{"Origin": {origin}} }
	upstream := http.Header{
		"Access-Control-Allow-Origin":      {"*", "https://evil.test"},
		"Access-Control-Allow-Credentials": {"true"},
		"Access-Control-Expose-Headers":    {"X-Secret"},
		"Access-Control-Allow-Methods":     {"PUT"},
		"Access-Control-Anything-Else":     {"1"},
		"access-control-max-age":           {"5"},
		"Content-Type":                     {"text/plain"},
		"Vary":                             {"Accept, Origin"},
	}
	tests := []struct {
		name    string
		config  cors.Config
		request http.Header
		before  http.Header
		want    http.Header
	}{
		{"anything", cors.Config{}, from(app), nil, http.Header{"Access-Control-Allow-Origin": {"*"}}},
		// A cache may give it to a page later.
		{"anything, no origin", cors.Config{ExposeHeaders: []string{"*"}}, nil, nil, http.Header{"Access-Control-Allow-Origin": {"*"}, "Access-Control-Expose-Headers": {"*"}}},
		{"anything, null", cors.Config{Origins: []string{"*"}}, from("null"), nil, http.Header{"Access-Control-Allow-Origin": {"*"}}},
		{"allowed", cors.Config{Origins: origins}, from(app), nil, http.Header{"Access-Control-Allow-Origin": {app}, "Vary": {"Origin"}}},
		{"not allowed", cors.Config{Origins: origins, Credentials: true, ExposeHeaders: []string{"X-A"}}, from("https://evil.test"), nil, http.Header{"Vary": {"Origin"}}},
		{"no origin", cors.Config{Origins: origins, Credentials: true, ExposeHeaders: []string{"X-A"}}, nil, nil, http.Header{"Vary": {"Origin"}}},
		{
			"everything",
			cors.Config{
				Origins: origins, Methods: []string{"PUT"}, Headers: []string{"X-A"}, ExposeHeaders: []string{"x-b", "X-C", "X-B"},
				Credentials: true, MaxAge: 600, PrivateNetwork: true,
			},
			from(app), nil,
			http.Header{
				"Access-Control-Allow-Origin": {app}, "Access-Control-Allow-Credentials": {"true"},
				"Access-Control-Expose-Headers": {"X-B, X-C"}, "Vary": {"Origin"},
			},
		},
		{
			"the upstream's fields", cors.Config{Origins: origins}, from(app), upstream,
			http.Header{"Access-Control-Allow-Origin": {app}, "Content-Type": {"text/plain"}, "Vary": {"Accept, Origin"}},
		},
		{
			"the upstream's fields, not allowed", cors.Config{Origins: origins}, from("https://evil.test"), upstream,
			http.Header{"Content-Type": {"text/plain"}, "Vary": {"Accept, Origin"}},
		},
		{
			"the upstream's fields, anything", cors.Config{}, from(app), upstream,
			http.Header{"Access-Control-Allow-Origin": {"*"}, "Content-Type": {"text/plain"}, "Vary": {"Accept, Origin"}},
		},
		{"Vary to add to", cors.Config{Origins: origins}, nil, http.Header{"Vary": {"Accept-Encoding"}}, http.Header{"Vary": {"Accept-Encoding, Origin"}}},
		{"Vary in lines", cors.Config{Origins: origins}, nil, http.Header{"Vary": {"Accept-Encoding", "Cookie"}}, http.Header{"Vary": {"Accept-Encoding, Cookie, Origin"}}},
		{"Vary in lines, complete", cors.Config{Origins: origins}, nil, http.Header{"Vary": {"Accept-Encoding", "Origin"}}, http.Header{"Vary": {"Accept-Encoding, Origin"}}},
		{"Vary in lower case", cors.Config{Origins: origins}, nil, http.Header{"Vary": {"accept,\torigin "}}, http.Header{"Vary": {"accept,\torigin "}}},
		{"Vary of a longer name", cors.Config{Origins: origins}, nil, http.Header{"Vary": {"X-Origin"}}, http.Header{"Vary": {"X-Origin, Origin"}}},
		{"Vary by everything", cors.Config{Origins: origins}, nil, http.Header{"Vary": {"*"}}, http.Header{"Vary": {"*"}}},
		{"Vary empty", cors.Config{Origins: origins}, nil, http.Header{"Vary": {""}}, http.Header{"Vary": {"Origin"}}},
	}
	for _, test := range tests {
		p := mustNew(t, test.config)
		h := test.before.Clone()
		if h == nil {
			h = http.Header{}
		}
		r := request(http.MethodGet, test.request)
		p.Apply(h, r)
		if diff := cmp.Diff(test.want, h); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.name, diff)
		}
		p.Apply(h, r)
		if diff := cmp.Diff(test.want, h); diff != "" {
			t.Errorf("%s, once more (-want +got):\n%s", test.name, diff)
		}
	}
}

// TestAnswersShareNothing has handlers edit values in place, as Caddy's own
// headers handler does. The race detector sees what they share.
func TestAnswersShareNothing(t *testing.T) {
	t.Parallel()
	p := mustNew(t, cors.Config{Origins: []string{app}, Credentials: true, ExposeHeaders: []string{"X-A"}, Headers: []string{"X-B"}})
	asked := http.Header{"Origin": {app}, "Access-Control-Request-Method": {"PUT"}}
	answer := func() http.Header {
		h := http.Header{}
		p.Preflight(h, request(http.MethodOptions, asked))
		p.Apply(h, request(http.MethodGet, asked))
		return h
	}
	want := answer()
	var edits sync.WaitGroup
	for range 4 {
		edits.Go(func() {
			for _, values := range answer() {
				values[0] = "edited"
			}
		})
	}
	edits.Wait()
	if diff := cmp.Diff(want, answer()); diff != "" {
		t.Errorf("after edits (-want +got):\n%s", diff)
	}
}

// TestApplyAllocs does not run in parallel, for AllocsPerRun.
func TestApplyAllocs(t *testing.T) {
	p := mustNew(t, cors.Config{
		Origins:     []string{"https://other.test", "https://*.example.com", `~https://x\.test`},
		Credentials: true, ExposeHeaders: []string{"X-A", "X-B"},
	})
	tests := []struct {
		name   string
		origin string
		vary   string
		most   float64
	}{
		{"a value for each field", app, "", 4},
		{"with Vary there", app, "Accept-Encoding, Origin", 3},
		{"not allowed", "https://evil.test", "Origin", 0},
		{"no origin", "", "Origin", 0},
	}
	for _, test := range tests {
		r := request(http.MethodGet, http.Header{"Origin": {test.origin}})
		h := make(http.Header, 8)
		vary := []string{test.vary}
		got := testing.AllocsPerRun(100, func() {
			clear(h)
			if test.vary != "" {
				h["Vary"] = vary
			}
			p.Apply(h, r)
		})
		if got > test.most {
			t.Errorf("%s: %v allocations, want at most %v", test.name, got, test.most)
		}
	}
}
