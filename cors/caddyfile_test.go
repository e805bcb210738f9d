package cors_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig"
	_ "github.com/caddyserver/caddy/v2/modules/standard"
	"github.com/google/go-cmp/cmp"

	_ "github.com/isekai-gateway/isekai/ratelimit"
)

func adapt(body string) ([]byte, error) {
	config, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(body), map[string]any{"filename": "Caddyfile"})
	return config, err
}

// routes returns the routes of the only server, in the order in which they run.
func routes(t *testing.T, config []byte) []any {
	t.Helper()
	var got struct {
		Apps struct {
			HTTP struct {
				Servers map[string]struct {
					Routes []any `json:"routes"`
				} `json:"servers"`
			} `json:"http"`
		} `json:"apps"`
	}
	if err := json.Unmarshal(config, &got); err != nil {
		t.Fatal(err)
	}
	var all []any
	for _, server := range got.Apps.HTTP.Servers {
		all = append(all, server.Routes...)
	}
	return all
}

func TestCaddyfile(t *testing.T) {
	t.Parallel()
	config, err := adapt(`:8080 {
		respond hello
		basic_auth {
			bob $2a$14$Zkx19XLiW6VYouLHR5NmfOFU0z2GTNmpkT/5qqR7hx4IjWJPDhjvG
		}
		isekai_rate_limit 600 1m {
			name all
		}
		redir /old /new
		isekai_cors
		isekai_cors /api/* https://app.example.com {
			origins ~https://pr-[0-9]{1,4}\.example\.com
			origins https://*.example.org capacitor://localhost
			methods GET put
			headers Authorization Content-Type
			expose_headers X-Total
			credentials
			max_age 1h30m
			private_network
		}
		isekai_cors /open/* {
			max_age off
			headers *
		}
		header X-Site 1
	}`)
	if err != nil {
		t.Fatal(err)
	}
	var want []any
	err = json.Unmarshal([]byte(`[
		{"handle": [{"handler": "headers", "response": {"set": {"X-Site": ["1"]}}}]},
		{"match": [{"path": ["/open/*"]}], "handle": [{"handler": "isekai_cors", "headers": ["*"], "max_age": -1}]},
		{"match": [{"path": ["/api/*"]}], "handle": [{"handler": "isekai_cors",
			"origins": ["https://app.example.com", "~https://pr-[0-9]{1,4}\\.example\\.com", "https://*.example.org", "capacitor://localhost"],
			"methods": ["GET", "put"], "headers": ["Authorization", "Content-Type"], "expose_headers": ["X-Total"],
			"credentials": true, "max_age": 5400, "private_network": true}]},
		{"handle": [{"handler": "isekai_cors"}]},
		{"match": [{"path": ["/old"]}], "handle": [{"handler": "static_response", "headers": {"Location": ["/new"]}, "status_code": 302}]},
		{"handle": [
			{"handler": "isekai_rate_limit", "name": "all", "limit": 600, "window": 60000000000},
			{"handler": "authentication", "providers": {"http_basic": {
				"accounts": [{"username": "bob", "password": "$2a$14$Zkx19XLiW6VYouLHR5NmfOFU0z2GTNmpkT/5qqR7hx4IjWJPDhjvG"}],
				"hash": {"algorithm": "bcrypt"}, "hash_cache": {}}}},
			{"handler": "static_response", "body": "hello"}
		]}
	]`), &want)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, routes(t, config)); diff != "" {
		t.Errorf("routes (-want +got):\n%s", diff)
	}
}

func TestCaddyfileErrors(t *testing.T) {
	t.Parallel()
	tests := []struct{ directive, want string }{
		{"isekai_cors example.com", `origins[0]: must be a scheme and a host, like "https://app.example.com", at Caddyfile:2`},
		{"isekai_cors https://a.test https://b.test/", "origins[1]: must end after the host and port, without a path, at Caddyfile:2"},
		{"isekai_cors https://a.test {\n max_age 1h\n origins https://b.test ~(\n headers X\n}", "origins[2]: regular expression: error parsing regexp: missing closing ): `(`, at Caddyfile:4"},
		{"isekai_cors {\n origins\n}", "wrong argument count or unexpected line ending after 'origins', at Caddyfile:3"},
		{"isekai_cors {\n methods\n}", "wrong argument count"},
		{"isekai_cors {\n headers\n}", "wrong argument count"},
		{"isekai_cors {\n expose_headers\n}", "wrong argument count"},
		{"isekai_cors {\n methods GET TRACE\n}", "methods[1]: no page can use TRACE, at Caddyfile:3"},
		{"isekai_cors {\n headers X:A\n}", `headers[0]: "X:A" is no name of a header field, at Caddyfile:3`},
		{"isekai_cors {\n expose_headers X:A\n}", `expose_headers[0]: "X:A" is no name of a header field, at Caddyfile:3`},
		{"isekai_cors {\n credentials\n}", "origins: must be named if credentials are allowed, at Caddyfile:4"},
		{"isekai_cors {\n credentials\n origins *\n}", `origins[0]: "*" can't be had with credentials; name what is allowed, at Caddyfile:4`},
		{"isekai_cors {\n credentials yes\n}", "wrong argument count"},
		{"isekai_cors {\n private_network yes\n}", "wrong argument count"},
		{"isekai_cors {\n max_age\n}", "wrong argument count"},
		{"isekai_cors {\n max_age 1h 2h\n}", "wrong argument count"},
		{"isekai_cors {\n max_age long\n}", `max_age "long": time: invalid duration`},
		{"isekai_cors {\n max_age 25h\n}", `max_age "25h": must be in whole seconds between 1s and 24h, or off, at Caddyfile:3`},
		{"isekai_cors {\n max_age 0s\n}", `max_age "0s": must be in whole seconds`},
		{"isekai_cors {\n max_age 1500ms\n}", `max_age "1500ms": must be in whole seconds`},
		{"isekai_cors {\n origin https://a.test\n}", "unrecognized option: origin, at Caddyfile:3"},
	}
	for _, test := range tests {
		_, err := adapt(":8080 {\n" + test.directive + "\n}")
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: error %v, want %q", test.directive, err, test.want)
		}
	}
}
