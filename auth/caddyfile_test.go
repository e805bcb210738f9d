package auth_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/google/go-cmp/cmp"
)

func adapt(body string) ([]byte, error) {
	config, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(body), map[string]any{"filename": "Caddyfile"})
	return config, err
}

const bcryptHash = "$2a$14$Zkx19XLiW6VYouLHR5NmfOFU0z2GTNmpkT/5qqR7hx4IjWJPDhjvG"

func TestCaddyfile(t *testing.T) {
	t.Parallel()
	config, err := adapt(strings.ReplaceAll(testSite, "HASH", bcryptHash))
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Apps struct {
			HTTP struct {
				Servers map[string]struct {
					Routes []struct {
						Handle []map[string]any `json:"handle"`
					} `json:"routes"`
				} `json:"servers"`
			} `json:"http"`
		} `json:"apps"`
	}
	if err := json.Unmarshal(config, &got); err != nil {
		t.Fatal(err)
	}
	var names []any
	var handlers []map[string]any
	for _, route := range got.Apps.HTTP.Servers["srv0"].Routes {
		for _, handler := range route.Handle {
			names = append(names, handler["handler"])
			if handler["handler"] == "isekai_auth" {
				handlers = append(handlers, handler)
			}
		}
	}
	if diff := cmp.Diff([]any{"authentication", "isekai_auth", "isekai_auth", "static_response"}, names); diff != "" {
		t.Error(diff)
	}
	second := float64(1e9)
	want := []map[string]any{
		{
			"handler": "isekai_auth", "any": []any{"jwt", "basic", "mtls"}, "groups": []any{"ops", "dev"}, "realm": "the site",
			"api_key": map[string]any{"headers": []any{"X-Key", "X-Other-Key"}, "query": []any{"key"}},
			"jwt": map[string]any{
				"corp": map[string]any{
					"issuer": "https://corp.example.com", "audience": []any{"orders", "billing"}, "jwks_url": "https://corp.example.com/keys",
					"refresh_interval": 3600 * second, "algorithms": []any{"ES256", "RS256"}, "leeway": 10 * second,
					"required_claims": map[string]any{"scope": "orders:read", "email": ""}, "id_claim": "client_id",
					"groups_claim": "realm_access.roles", "claim_headers": map[string]any{"X-Email": "email"},
				},
				"shared": map[string]any{"issuer": "shared", "audience": []any{"*"}, "secret": "{env.JWT_SECRET}"},
			},
			"basic":   map[string]any{"bob": map[string]any{"password": bcryptHash, "groups": []any{"staff"}}, "eve": map[string]any{"password": bcryptHash}},
			"mtls":    true,
			"headers": map[string]any{"X-User": "{http.auth.user.id}"},
		},
		{"handler": "isekai_auth", "any": []any{"api_key"}, "anonymous": true},
	}
	if diff := cmp.Diff(want, handlers); diff != "" {
		t.Error(diff)
	}
}

const testSite = `:8080 {
	respond hello
	isekai_auth api_key {
		anonymous
	}
	isekai_auth /admin/* jwt basic {
		any mtls
		groups ops dev
		realm "the site"
		api_key {
			header X-Key X-Other-Key
			query key
		}
		jwt corp {
			issuer https://corp.example.com
			audience orders billing
			jwks_url https://corp.example.com/keys
			refresh_interval 1h
			algorithms ES256 RS256
			leeway 10s
			require_claim scope orders:read
			require_claim email
			id_claim client_id
			groups_claim realm_access.roles
			claim_header X-Email email
		}
		jwt shared {
			issuer shared
			audience *
			secret {env.JWT_SECRET}
		}
		basic {
			bob HASH staff
			eve HASH
		}
		mtls
		headers {
			X-User {http.auth.user.id}
		}
	}
	basic_auth {
		bob HASH
	}
}`

func TestCaddyfileErrors(t *testing.T) {
	t.Parallel()
	const jwt = "jwt a {\nissuer x\naudience y\n"
	for name, c := range map[string]struct{ body, want string }{
		"no method":         {"isekai_auth", "any: must name"},
		"unknown method":    {"isekai_auth oauth", "any[0]: must be one of"},
		"unknown option":    {"isekai_auth jwt {\nwhat\n}", "unrecognized option: what"},
		"anonymous groups":  {"isekai_auth api_key {\nanonymous\ngroups a\n}", "no effect"},
		"argument":          {"isekai_auth api_key {\nanonymous yes\n}", "wrong argument count"},
		"issuer twice":      {"isekai_auth jwt {\n" + jwt + "key_file a\n}\n" + jwt + "key_file a\n}\n}", "stands twice"},
		"issuer's name":     {"isekai_auth jwt {\njwt a/b {\nissuer x\naudience y\nkey_file a\n}\n}", "a name has"},
		"no key":            {"isekai_auth jwt {\n" + jwt + "}\n}", "exactly one of jwks_url"},
		"unknown in jwt":    {"isekai_auth jwt {\n" + jwt + "keys x\n}\n}", "unrecognized option: keys"},
		"plain secret":      {"isekai_auth jwt {\n" + jwt + "secret abc\n}\n}", "placeholder"},
		"duration":          {"isekai_auth jwt {\n" + jwt + "leeway soon\n}\n}", "duration such as"},
		"claim twice":       {"isekai_auth jwt {\n" + jwt + "require_claim a\nrequire_claim a b\n}\n}", "stands twice"},
		"account twice":     {"isekai_auth basic {\nbasic {\nbob x\nbob y\n}\n}", "stands twice"},
		"account of none":   {"isekai_auth basic {\nbasic {\nbob\n}\n}", "wrong argument count"},
		"reserved field":    {"isekai_auth api_key {\nheaders {\nHost x\n}\n}", "meaning of its own"},
		"underscore in it":  {"isekai_auth api_key {\napi_key {\nheader X_Key\n}\n}", "no name of a header field"},
		"realm twice":       {"isekai_auth api_key {\nrealm a\nrealm b\n}", "stands twice"},
		"realm with breaks": {"isekai_auth api_key {\nrealm \"a\tb\"\n}", "printable"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := adapt(":8080 {\n" + c.body + "\n}")
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "Caddyfile:") {
				t.Errorf("error %v, want %q and a line", err, c.want)
			}
		})
	}
}
