package mirror_test

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
		handle /api/* {
			respond api
		}
		isekai_mirror http://10.0.0.9:9000
		isekai_mirror /api/* https://next.example.com/base {
			sample 0.1
			body_max 64KiB
			queue 500
			concurrency 4
			timeout 5s
			preserve_host
		}
		rewrite /old /new
		request_header X-A b
	}`)
	if err != nil {
		t.Fatal(err)
	}
	var want any
	err = json.Unmarshal([]byte(`[
		{"group": "group1", "match": [{"path": ["/old"]}], "handle": [{"handler": "rewrite", "uri": "/new"}]},
		{"handle": [{"handler": "headers", "request": {"set": {"X-A": ["b"]}}}]},
		{"match": [{"path": ["/api/*"]}], "handle": [{"handler": "isekai_mirror", "target_url": "https://next.example.com/base",
			"sample": 0.1, "body_max": 65536, "queue": 500, "concurrency": 4, "timeout": 5000000000, "preserve_host": true}]},
		{"handle": [{"handler": "isekai_mirror", "target_url": "http://10.0.0.9:9000"}]},
		{"match": [{"path": ["/api/*"]}], "handle": [{"handler": "subroute", "routes": [
			{"handle": [{"handler": "static_response", "body": "api"}]}]}]},
		{"handle": [{"handler": "static_response", "body": "hello"}]}
	]`), &want)
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Apps struct {
			HTTP struct {
				Servers map[string]struct {
					Routes any `json:"routes"`
				} `json:"servers"`
			} `json:"http"`
		} `json:"apps"`
	}
	if err := json.Unmarshal(config, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got.Apps.HTTP.Servers["srv0"].Routes); diff != "" {
		t.Errorf("routes (-want +got):\n%s", diff)
	}
}

func TestCaddyfileErrors(t *testing.T) {
	t.Parallel()
	option := func(line string) string { return "isekai_mirror http://10.0.0.9 {\n" + line + "\n}" }
	tests := []struct{ directive, want string }{
		{"isekai_mirror", "wrong argument count or unexpected line ending after 'isekai_mirror', at Caddyfile:2"},
		{"isekai_mirror http://10.0.0.9 http://10.0.0.8", "wrong argument count"},
		{"isekai_mirror 10.0.0.9:80", "target_url: must be a URL such as http://10.0.0.5:9000/base, at Caddyfile:2"},
		{"isekai_mirror ftp://10.0.0.9", `target_url: scheme "ftp" is not supported: use http, https or h2c, at Caddyfile:2`},
		{"isekai_mirror http://10.0.0.9/a?b", "target_url: must not have a query or a fragment"},
		{"isekai_mirror http://10.0.0.9/{x}", "target_url: {x} is not a parameter of the path"},
		{"isekai_mirror http://169.254.169.254", "target_url: target address is not allowed"},
		{option("sample"), "wrong argument count or unexpected line ending after 'sample', at Caddyfile:3"},
		{option("sample much"), `sample "much": must be a number such as 0.1, at Caddyfile:3`},
		{option("sample 0"), "sample: must be above 0 and at most 1, such as 0.1 for every tenth request; to mirror nothing, leave out the mirror, at Caddyfile:3"},
		{option("sample 1.5"), "sample: must be above 0"},
		{option("sample NaN"), "sample: must be above 0"},
		{option("body_max 2MiB"), `body_max "2MiB": must be a size such as 64KiB, at most 1MiB, at Caddyfile:3`},
		{option("body_max 0"), "must be a size"},
		{option("body_max -1"), "must be a size"},
		{option("timeout soon"), `timeout "soon": must be a duration such as 10s, at Caddyfile:3`},
		{option("timeout 0s"), "must be a duration"},
		{option("timeout 5ms"), "timeout: must be between 1 and 60 seconds, at Caddyfile:3"},
		{option("queue 0"), `queue "0": must be a whole number above 0, at Caddyfile:3`},
		{option("queue 100001"), "queue: must be between 1 and 100000, at Caddyfile:3"},
		{option("concurrency x"), `concurrency "x": must be a whole number above 0, at Caddyfile:3`},
		{option("concurrency 257"), "concurrency: must be between 1 and 256, at Caddyfile:3"},
		{option("concurrency 1 2"), "wrong argument count"},
		{option("preserve_host yes"), "wrong argument count"},
		{option("sample 1\nqueue 5\nsample 1"), "option sample stands twice, at Caddyfile:5"},
		{option("rate 1"), "unrecognized option: rate, at Caddyfile:3"},
	}
	for _, test := range tests {
		_, err := adapt(":8080 {\n" + test.directive + "\n}")
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: error %v, want %q", test.directive, err, test.want)
		}
	}
}
