package ratelimit_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig"
	_ "github.com/caddyserver/caddy/v2/modules/standard"
	"github.com/google/go-cmp/cmp"
)

func adapt(body string) ([]byte, error) {
	config, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(body), map[string]any{"filename": "Caddyfile"})
	return config, err
}

// handlers returns the handlers of the only server, in the order in which they run.
func handlers(t *testing.T, config []byte) []any {
	t.Helper()
	var got struct {
		Apps struct {
			HTTP struct {
				Servers map[string]struct {
					Routes []struct {
						Handle []any `json:"handle"`
					} `json:"routes"`
				} `json:"servers"`
			} `json:"http"`
		} `json:"apps"`
	}
	if err := json.Unmarshal(config, &got); err != nil {
		t.Fatal(err)
	}
	var all []any
	for _, server := range got.Apps.HTTP.Servers {
		for _, route := range server.Routes {
			all = append(all, route.Handle...)
		}
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
		isekai_rate_limit 600 1m
		isekai_rate_limit /login* 10 1h {client_ip} {
			name login
			headers legacy
			dry_run
		}
		isekai_rate_limit {
			key {header.X-Tenant}
			cost 2
			rule burst 20 1s {client_ip}
			rule hourly 500 1h {
				key {header.X-User}
				cost 5
			}
			rule daily 10000 1d
		}
	}`)
	if err != nil {
		t.Fatal(err)
	}
	var want []any
	err = json.Unmarshal([]byte(`[
		{"handler": "isekai_rate_limit", "name": "login", "limit": 10, "window": 3600000000000,
			"key": "{http.vars.client_ip}", "headers": "legacy", "dry_run": true},
		{"handler": "isekai_rate_limit", "name": "limit-1", "limit": 600, "window": 60000000000},
		{"handler": "isekai_rate_limit", "name": "limit-2", "key": "{http.request.header.X-Tenant}", "cost": 2, "rules": [
			{"name": "burst", "limit": 20, "window": 1000000000, "key": "{http.vars.client_ip}"},
			{"name": "hourly", "limit": 500, "window": 3600000000000, "key": "{http.request.header.X-User}", "cost": 5},
			{"name": "daily", "limit": 10000, "window": 86400000000000}
		]},
		{"handler": "authentication", "providers": {"http_basic": {
			"accounts": [{"username": "bob", "password": "$2a$14$Zkx19XLiW6VYouLHR5NmfOFU0z2GTNmpkT/5qqR7hx4IjWJPDhjvG"}],
			"hash": {"algorithm": "bcrypt"}, "hash_cache": {}}}},
		{"handler": "static_response", "body": "hello"}
	]`), &want)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, handlers(t, config)); diff != "" {
		t.Errorf("handlers (-want +got):\n%s", diff)
	}
}

func TestCaddyfileErrors(t *testing.T) {
	t.Parallel()
	tests := []struct{ directive, want string }{
		{"isekai_rate_limit", "a limit or a rule is required"},
		{"isekai_rate_limit 10", "wrong argument count"},
		{"isekai_rate_limit 10 1m k more", "wrong argument count"},
		{"isekai_rate_limit ten 1m", `limit "ten" is not a number`},
		{"isekai_rate_limit 0 1m", `limit "0" is not a number between 1`},
		{"isekai_rate_limit 10 soon", `parsing window "soon"`},
		{"isekai_rate_limit 10 1m {\n size 3\n}", "unrecognized option: size"},
		{"isekai_rate_limit 10 1m k {\n key l\n}", "key is given twice"},
		{"isekai_rate_limit 10 1m {\n key\n}", "wrong argument count"},
		{"isekai_rate_limit 10 1m {\n name\n}", "wrong argument count"},
		{"isekai_rate_limit 10 1m {\n headers\n}", "wrong argument count"},
		{"isekai_rate_limit 10 1m {\n headers both\n}", `headers "both"`},
		{"isekai_rate_limit 10 1m {\n dry_run yes\n}", "wrong argument count"},
		{"isekai_rate_limit {\n rule a 1\n}", "wrong argument count"},
		{"isekai_rate_limit {\n rule a x 1m\n}", `limit "x"`},
		{"isekai_rate_limit {\n rule a 1 1m k more\n}", "wrong argument count"},
		{"isekai_rate_limit {\n rule a 1 1m k {\n key l\n}\n}", "key is given twice"},
		{"isekai_rate_limit {\n rule a 1 1m {\n size 1\n}\n}", "unrecognized option of a rule: size, at Caddyfile:4"},
		{"isekai_rate_limit {\n rule a 1 1m {\n cost 0\n}\n}", `cost "0" is not a number between 1`},
		{"isekai_rate_limit 10 1m {\n cost two\n}", `cost "two"`},
		{"isekai_rate_limit 10 1m {\n cost 1\n cost 1\n}", "cost is given twice"},
		{"isekai_rate_limit 10 1m {\n cost\n}", "wrong argument count"},
	}
	for _, test := range tests {
		_, err := adapt(":8080 {\n" + test.directive + "\n}")
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: error %v, want %q", test.directive, err, test.want)
		}
	}
}
