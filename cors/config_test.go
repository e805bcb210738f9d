package cors_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/isekai-gateway/isekai/cors"
	"github.com/isekai-gateway/isekai/store"
)

func TestValidate(t *testing.T) {
	t.Parallel()
	many := make([]string, 101)
	for i := range many {
		many[i] = fmt.Sprintf("https://a%d.test", i)
	}
	const app = `"origins": ["https://app.test"]`
	tests := []struct {
		config string
		want   []string // "field: part of the message"
	}{
		{`{}`, nil},
		{`{"origins": ["*"], "methods": ["*"], "headers": ["*"], "expose_headers": ["*"], "max_age": 86400}`, nil},
		{`{` + app + `, "credentials": true, "methods": ["put", "QUERY"], "headers": ["authorization"], "expose_headers": ["X-A"], "max_age": -1, "private_network": true}`, nil},
		{`{"origins": ["https://*.app.test", "~https://[a-z]+\\.app\\.test"], "credentials": true}`, nil},
		{`{"origins": ["null"]}`, nil},

		{`{"origins": []}`, []string{"origins: must not be empty"}},
		{`{"origins": [], "credentials": true}`, []string{"origins: must be named"}},
		{`{"credentials": true}`, []string{"origins: must be named"}},
		{`{"origins": ["*"], "credentials": true}`, []string{`origins[0]: "*" can't be had with credentials`}},
		{`{"origins": ["https://app.test", "*"]}`, []string{"origins[1]: \"*\" means all and must stand alone"}},
		{`{"origins": ["null"], "credentials": true}`, []string{`origins[0]: "null" can't be had with credentials`}},
		{`{"origins": ["~.*"], "credentials": true}`, []string{"origins[0]: matches any origin"}},
		{`{"origins": ["~https?://[^/]+"], "credentials": true}`, []string{"origins[0]: matches any origin"}},
		{`{"origins": ["~http://.*"], "credentials": true}`, []string{"origins[0]: matches any origin"}},
		{`{` + app + `, "credentials": true, "methods": ["*"], "headers": ["*"], "expose_headers": ["*"]}`, []string{
			`methods[0]: "*" can't be had with credentials`, `headers[0]: "*" can't be had with credentials`, `expose_headers[0]: "*" can't be had with credentials`,
		}},

		{`{"origins": [""]}`, []string{"origins[0]: must be a scheme and a host"}},
		{`{"origins": ["app.test"]}`, []string{"origins[0]: must be a scheme and a host"}},
		{`{"origins": ["NULL"]}`, []string{"origins[0]: must be a scheme and a host"}},
		{`{"origins": ["https:app.test"]}`, []string{"origins[0]: must be a scheme and a host"}},
		{`{"origins": ["*://app.test"]}`, []string{"origins[0]: must be a scheme and a host"}},
		{`{"origins": ["https://"]}`, []string{"origins[0]: must be a scheme and a host"}},
		{`{"origins": ["https://:80"]}`, []string{"origins[0]: must be a scheme and a host"}},
		{`{"origins": ["https://[::1]x"]}`, []string{"origins[0]: must be a scheme and a host"}},
		{`{"origins": ["file:///"]}`, []string{`origins[0]: local files have the origin "null"`}},
		{`{"origins": ["https://app.test/"]}`, []string{"origins[0]: must end after the host and port"}},
		{`{"origins": ["https://app.test/a?b"]}`, []string{"origins[0]: must end after the host and port"}},
		{`{"origins": ["https://app.test?b"]}`, []string{"origins[0]: must end after the host and port"}},
		{`{"origins": ["https://app.test#b"]}`, []string{"origins[0]: must end after the host and port"}},
		{`{"origins": ["https://me:pw@app.test"]}`, []string{"origins[0]: must have no user name"}},
		{`{"origins": ["https://app.test:"]}`, []string{"origins[0]: port \"\""}},
		{`{"origins": ["https://app.test:0"]}`, []string{"origins[0]: port \"0\""}},
		{`{"origins": ["https://app.test:65536"]}`, []string{"origins[0]: port \"65536\""}},
		{`{"origins": ["https://app.test:*"]}`, []string{"origins[0]: port \"*\""}},
		{`{"origins": ["https://app.test:+80"]}`, []string{"origins[0]: port \"+80\""}},
		{`{"origins": ["https://::1"]}`, []string{"origins[0]: must be a scheme and a host"}},
		{`{"origins": ["https://[::1"]}`, []string{"origins[0]: "}},
		{`{"origins": ["https://[127.0.0.1]"]}`, []string{"origins[0]: \"[127.0.0.1]\" is no IPv6 address"}},
		{`{"origins": ["https://[::ffff:127.0.0.1]"]}`, []string{"origins[0]: "}},
		{`{"origins": ["https://[fe80::1%25eth0]"]}`, []string{"origins[0]: "}},
		{`{"origins": ["https://127.0.0.1]"]}`, []string{"origins[0]: "}},
		{`{"origins": ["https://127.1"]}`, []string{"origins[0]: host is neither"}},
		{`{"origins": ["https://app.test."]}`, []string{"origins[0]: must not end with a dot"}},
		{`{"origins": ["https://app..test"]}`, []string{"origins[0]: host has an empty label"}},
		{`{"origins": ["https://app test"]}`, []string{"origins[0]: host "}},
		{`{"origins": ["https://a,https://b"]}`, []string{"origins[0]: "}},
		{`{"origins": ["https://xn--a.test"]}`, []string{"origins[0]: host is no valid international host name"}},
		{`{"origins": ["https://*"]}`, []string{`origins[0]: "*" must be followed by a name`}},
		{`{"origins": ["https://*."]}`, []string{`origins[0]: "*" must be followed by a name`}},
		{`{"origins": ["https://*app.test"]}`, []string{"origins[0]: host "}},
		{`{"origins": ["https://app.*.test"]}`, []string{"origins[0]: host "}},
		{`{"origins": ["https://*.10.0.0.1"]}`, []string{"origins[0]: host is neither"}},
		{`{"origins": ["~"]}`, []string{`origins[0]: "~" must be followed`}},
		{`{"origins": ["~https://(a"]}`, []string{"origins[0]: regular expression: "}},
		{`{"origins": ["~a)|(?:b"]}`, []string{"origins[0]: regular expression: "}},
		{`{"origins": ["~\\Qhttps://a.test"]}`, []string{"origins[0]: regular expression: "}},
		{`{"origins": ["https://` + strings.Repeat("a.", 300) + `test"]}`, []string{"origins[0]: must not be longer than 512 bytes"}},
		{`{"origins": ["` + strings.Join(many, `","`) + `"]}`, []string{"origins: must not be more than 100"}},
		{`{"headers": ["` + strings.Repeat(`a","`, 100) + `a"]}`, []string{"headers: must not be more than 100"}},

		{`{"methods": ["CONNECT", "trace", "Track", "GET"]}`, []string{"methods[0]: no page can use CONNECT", "methods[1]: no page can use TRACE", "methods[2]: no page can use TRACK"}},
		{`{"methods": ["", "GET,PUT", "A B"]}`, []string{`methods[0]: "" is no method`, `methods[1]: "GET,PUT" is no method`, `methods[2]: "A B" is no method`}},
		{`{"methods": ["GET", "*"]}`, []string{"methods[1]: \"*\" means all"}},
		{`{"headers": ["X-A", "X A", ""], "expose_headers": ["X:A", "X\r\nY", "é"]}`, []string{
			`headers[1]: "X A" is no name`, `headers[2]: "" is no name`,
			`expose_headers[0]: "X:A" is no name`, `expose_headers[1]: `, `expose_headers[2]: `,
		}},
		{`{"methods": ["` + strings.Repeat("A", 257) + `"], "headers": ["` + strings.Repeat("a", 257) + `"]}`, []string{"methods[0]: must not be longer", "headers[0]: must not be longer"}},
		{`{"headers": ["*", "X-A"]}`, []string{"headers[0]: \"*\" means all"}},
		{`{"max_age": 86401}`, []string{"max_age: must be between 0 and 86400, or -1"}},
		{`{"max_age": -2}`, []string{"max_age: must be between 0 and 86400, or -1"}},
		{`{"origins": ["a"], "methods": ["TRACE"], "max_age": -9}`, []string{"methods[0]: ", "origins[0]: ", "max_age: "}},
	}
	for _, test := range tests {
		var c cors.Config
		if err := json.Unmarshal([]byte(test.config), &c); err != nil {
			t.Fatalf("%s: %v", test.config, err)
		}
		err := c.Validate()
		if test.want == nil {
			if err != nil {
				t.Errorf("%s: %v", test.config, err)
			}
			continue
		}
		var errs store.FieldErrors
		if !errors.As(err, &errs) || len(errs) != len(test.want) {
			t.Errorf("%.80s: errors %v, want %q", test.config, err, test.want)
			continue
		}
		for i, want := range test.want {
			if !strings.HasPrefix(errs[i].Error(), want) {
				t.Errorf("%.80s: error %q, want %q", test.config, errs[i], want)
			}
		}
		if p, err := cors.New(c); p != nil || !errors.Is(err, store.ErrInvalid) {
			t.Errorf("%.80s: New returns %v, %v", test.config, p, err)
		}
	}
}

func TestWithDefaultMethods(t *testing.T) {
	t.Parallel()
	const app = "https://app.test"
	tests := []struct {
		config  cors.Config
		methods []string
		want    string
	}{
		{cors.Config{}, nil, "GET, HEAD, POST"},
		{cors.Config{}, []string{"GET", "PATCH"}, "GET, PATCH"},
		{cors.Config{}, []string{"*"}, "*"},
		{cors.Config{}, []string{"PUT", "TRACK"}, "PUT"},
		{cors.Config{}, []string{"TRACK"}, "GET, HEAD, POST"},
		{cors.Config{Origins: []string{app}, Credentials: true}, []string{"*"}, "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"},
		{cors.Config{Methods: []string{"put", "PUT", "Query"}}, []string{"GET"}, "PUT, QUERY"},
	}
	for _, test := range tests {
		p := mustNew(t, test.config.WithDefaultMethods(test.methods))
		h := http.Header{}
		p.Preflight(h, request(http.MethodOptions, http.Header{"Origin": {app}, "Access-Control-Request-Method": {"PUT"}}))
		if diff := cmp.Diff([]string{test.want}, h["Access-Control-Allow-Methods"]); diff != "" {
			t.Errorf("%+v with %q (-want +got):\n%s", test.config, test.methods, diff)
		}
	}
}
