package api_test

import (
	"fmt"
	"net/url"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/isekai-gateway/isekai/api"
	"github.com/isekai-gateway/isekai/ondemand"
)

func (a answer) hosts() []string {
	a.t.Helper()
	hosts := []string{}
	for _, item := range a.want(200).object()["items"].([]any) {
		hosts = append(hosts, item.(object)["host"].(string))
	}
	return hosts
}

func TestHosts(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	n := newNode(t, func(cfg *api.Config) {
		cfg.Certificates = func(host string) []ondemand.Certificate {
			if host != "a.test" {
				return nil
			}
			return []ondemand.Certificate{{Names: []string{"a.test"}, Issuer: "CN=R11", Serial: "5f", NotBefore: at, NotAfter: at.Add(time.Hour)}}
		}
		cfg.CertificateFailure = func(host string) (ondemand.Failure, bool) {
			return ondemand.Failure{Message: "rate limited", Time: at, Renewal: true}, host == "b.test"
		}
	})
	add := func(host, path, more string) {
		t.Helper()
		n.do(t, "POST", "/api/routes", fmt.Sprintf(`{"host": %q, "path": %q, "target_url": "http://127.0.0.1:9000"%s}`, host, path, more)).want(201)
	}
	add("A.test", "/", "")
	add("a.test", "/x/{id}", "")
	add("b.test", "/", "")
	add("*.wild.test", "/", "")
	add("bücher.test", "/", "")
	add("", "/any", "")
	add("off.test", "/", `, "enabled": false`)

	want := object{"items": []any{
		object{"host": "*.wild.test", "routes": 1.0, "certificates": []any{}},
		object{"host": "a.test", "routes": 2.0, "certificates": []any{object{
			"names": []any{"a.test"}, "issuer": "CN=R11", "serial": "5f", "not_before": "2026-01-02T03:04:05Z", "not_after": "2026-01-02T04:04:05Z",
		}}},
		object{"host": "b.test", "routes": 1.0, "certificates": []any{}, "last_error": object{"message": "rate limited", "time": "2026-01-02T03:04:05Z", "renewal": true}},
		object{"host": "xn--bcher-kva.test", "routes": 1.0, "certificates": []any{}},
	}}
	if diff := cmp.Diff(want, n.do(t, "GET", "/api/hosts", "").want(200).object()); diff != "" {
		t.Error(diff)
	}
	for query, want := range map[string][]string{
		"host=B.TEST":           {"b.test"},
		"host=b%C3%BCcher.test": {"xn--bcher-kva.test"},
		"host=*.wild.test":      {"*.wild.test"},
		"host=off.test":         {},
		"host=%00":              {},
		"q=.TEST&limit=2":       {"*.wild.test", "a.test"},
		"q=xn":                  {"xn--bcher-kva.test"},
		"q=nowhere":             {},
		"host=a.test&q=b":       {},
		"limit=1000":            {"*.wild.test", "a.test", "b.test", "xn--bcher-kva.test"},
	} {
		if got := n.do(t, "GET", "/api/hosts?"+query, "").hosts(); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", query, got, want)
		}
	}
	for _, query := range []string{"cursor=x", "cursor=" + url.QueryEscape("YWZ0ZXI6MQ"), "limit=0", "limit=1001", "x=1"} {
		if a := n.do(t, "GET", "/api/hosts?"+query, ""); a.status != 422 {
			t.Errorf("%s: %d", query, a.status)
		}
	}
	for limit := 1; limit <= 5; limit++ {
		var got []string
		next := ""
		for {
			page := n.do(t, "GET", fmt.Sprintf("/api/hosts?limit=%d%s", limit, next), "")
			got = append(got, page.hosts()...)
			cursor, more := page.object()["next"].(string)
			if !more {
				break
			}
			next = "&cursor=" + url.QueryEscape(cursor)
		}
		if want := []string{"*.wild.test", "a.test", "b.test", "xn--bcher-kva.test"}; !slices.Equal(got, want) {
			t.Errorf("in pages of %d: %q", limit, got)
		}
	}
}
