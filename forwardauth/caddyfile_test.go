package forwardauth_test

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

func TestCaddyfile(t *testing.T) {
	t.Parallel()
	config, err := adapt(`:8080 {
		respond hello
		encode
		request_header X-A b
		isekai_forward_auth https://auth.example.com/verify
		isekai_forward_auth /api/* http://10.0.0.9:9091/verify?rd=x {
			copy_headers Remote-User Remote-Email
			copy_headers X-Id>X-User-Id
			timeout 2s
			on_error allow
		}
		basic_auth {
			bob $2a$14$Zkx19XLiW6VYouLHR5NmfOFU0z2GTNmpkT/5qqR7hx4IjWJPDhjvG
		}
		rewrite /new
	}`)
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
	var asks []map[string]any
	for _, server := range got.Apps.HTTP.Servers {
		for _, route := range server.Routes {
			for _, handler := range route.Handle {
				names = append(names, handler["handler"])
				if handler["handler"] == "isekai_forward_auth" {
					asks = append(asks, handler)
				}
			}
		}
	}
	if diff := cmp.Diff([]any{"rewrite", "authentication", "isekai_forward_auth", "isekai_forward_auth", "headers", "encode", "static_response"}, names); diff != "" {
		t.Errorf("the order (-want +got):\n%s", diff)
	}
	want := []map[string]any{
		{"handler": "isekai_forward_auth", "url": "http://10.0.0.9:9091/verify?rd=x", "copy_headers": []any{"Remote-User", "Remote-Email", "X-Id>X-User-Id"}, "timeout": float64(2e9), "on_error": "allow"},
		{"handler": "isekai_forward_auth", "url": "https://auth.example.com/verify"},
	}
	if diff := cmp.Diff(want, asks); diff != "" {
		t.Errorf("the handlers (-want +got):\n%s", diff)
	}
}

func TestCaddyfileErrors(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"isekai_forward_auth":                                       "wrong argument count",
		"isekai_forward_auth http://a http://b":                     "wrong argument count",
		"isekai_forward_auth unix//run/x.sock":                      "must be an http or https URL",
		"isekai_forward_auth http://a {\nuri /x\n}":                 "unrecognized option: uri",
		"isekai_forward_auth http://a {\ncopy_headers\n}":           "wrong argument count",
		"isekai_forward_auth http://a {\ncopy_headers A Host\n}":    "can't be copied",
		"isekai_forward_auth http://a {\ntimeout soon\n}":           "must be a duration",
		"isekai_forward_auth http://a {\ntimeout 0\n}":              "must be a duration",
		"isekai_forward_auth http://a {\ntimeout 1s\ntimeout 2s\n}": "stands twice",
		"isekai_forward_auth http://a {\non_error maybe\n}":         `must be "deny" or "allow"`,
		"isekai_forward_auth http://a {\non_error deny allow\n}":    "wrong argument count",
		"isekai_forward_auth http://u:p@a":                          "user name",
	} {
		t.Run(text, func(t *testing.T) {
			t.Parallel()
			_, err := adapt(":8080 {\n" + text + "\n}")
			if err == nil || !strings.Contains(strings.ToLower(err.Error()), strings.ToLower(want)) || !strings.Contains(err.Error(), "Caddyfile:") {
				t.Errorf("got %v, want %q and a line", err, want)
			}
		})
	}
}
