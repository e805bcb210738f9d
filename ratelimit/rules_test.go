package ratelimit_test

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/dunglas/httpsfv"
	"github.com/google/go-cmp/cmp"
)

// members parses a field as a List of RFC 9651 whose members are Strings with
// Integers as parameters, and returns them in the form name;key=value.
func members(t *testing.T, values []string) []string {
	t.Helper()
	list, err := httpsfv.UnmarshalList(values)
	if err != nil {
		t.Fatalf("%q is no list of RFC 9651: %v", values, err)
	}
	var all []string
	for _, member := range list {
		item, ok := member.(httpsfv.Item)
		if !ok {
			t.Fatalf("%q has a member that is no item", values)
		}
		name, ok := item.Value.(string)
		if !ok {
			t.Fatalf("%q has a member that is no String", values)
		}
		var text strings.Builder
		text.WriteString(name)
		for _, param := range item.Params.Names() {
			value, _ := item.Params.Get(param)
			n, ok := value.(int64)
			if !ok {
				t.Fatalf("%q: %s is no Integer", values, param)
			}
			fmt.Fprintf(&text, ";%s=%d", param, n)
		}
		all = append(all, text.String())
	}
	return all
}

func TestRulesWithKeysAndCosts(t *testing.T) {
	s := newSite(t)
	s.mustLoad(t, `{"handler": "isekai_rate_limit", "name": "all", "limit": 6, "window": "1h", "cost": 2, "rules": [
		{"name": "tenant", "limit": 20, "window": "1d", "key": "{http.request.header.X-Tenant}", "cost": 5},
		{"name": "path", "limit": 100, "window": "1d", "key": "{client_ip}{http.request.uri.path}"}
	]}`, hello)
	defer stop(t)
	get := func(path, client, tenant string, status int, remaining ...string) *http.Response {
		t.Helper()
		response, _ := s.getPath(t, path, "X-Forwarded-For", client, "X-Tenant", tenant)
		if response.StatusCode != status {
			t.Errorf("%s of %s at %s: status %d, want %d", path, client, tenant, response.StatusCode, status)
		}
		var got []string
		for _, m := range members(t, response.Header["Ratelimit"]) {
			name, rest, _ := strings.Cut(m, ";r=")
			left, _, _ := strings.Cut(rest, ";")
			got = append(got, name+" "+left)
		}
		if diff := cmp.Diff(remaining, got); diff != "" {
			t.Errorf("%s of %s at %s (-want +got):\n%s", path, client, tenant, diff)
		}
		return response
	}
	first := get("/a", "192.0.2.1", "x", 200, "all 4", "tenant 15", "path 98")
	want := []string{"all;q=6;w=3600", "tenant;q=20;w=86400", "path;q=100;w=86400"}
	if diff := cmp.Diff(want, members(t, first.Header["Ratelimit-Policy"])); diff != "" {
		t.Errorf("policies (-want +got):\n%s", diff)
	}
	get("/b", "192.0.2.1", "y", 200, "all 2", "tenant 15", "path 98")
	get("/a", "192.0.2.2", "x", 200, "all 4", "tenant 10", "path 98")
	get("/a", "192.0.2.1", "x", 200, "all 0", "tenant 5", "path 96")
	// Refused by one rule, charged to none.
	refused := get("/a", "192.0.2.1", "x", 429, "all 0", "tenant 5", "path 96")
	if wait, err := strconv.Atoi(refused.Header.Get("Retry-After")); err != nil || wait < 1 || wait > 3600 {
		t.Errorf("Retry-After %q", refused.Header.Get("Retry-After"))
	}
	get("/a", "192.0.2.3", "x", 200, "all 4", "tenant 0", "path 98")
	refused = get("/a", "192.0.2.4", "x", 429, "all 6", "tenant 0", "path 100")
	if wait, err := strconv.Atoi(refused.Header.Get("Retry-After")); err != nil || wait <= 3600 || wait > 86_400 {
		t.Errorf("Retry-After %q is not that of the rule that refused", refused.Header.Get("Retry-After"))
	}
}

func TestMatchers(t *testing.T) {
	s := newSite(t)
	s.routes = `{"match": [{"path": ["/login*"], "not": [{"client_ip": {"ranges": ["192.0.2.9"]}}]}], "handle": [%s]}, {"handle": [` + hello + `]}`
	s.mustLoad(t, limit("matched", 1, ""))
	defer stop(t)
	for _, test := range []struct {
		path, client string
		status       int
	}{
		{"/login", "192.0.2.1", 200},
		{"/login/x", "192.0.2.1", 429},
		{"/other", "192.0.2.1", 200},
		{"/other", "192.0.2.1", 200},
		{"/login", "192.0.2.9", 200},
		{"/login", "192.0.2.9", 200},
	} {
		if response, _ := s.getPath(t, test.path, "X-Forwarded-For", test.client); response.StatusCode != test.status {
			t.Errorf("%s of %s: status %d, want %d", test.path, test.client, response.StatusCode, test.status)
		}
	}
}

// A client that is no trusted proxy can't choose what it is counted by.
func TestSpoofedAddresses(t *testing.T) {
	s := newSite(t)
	s.trusted = "192.0.2.0/24"
	s.mustLoad(t, limit("spoofed", 3, ""), hello)
	defer stop(t)
	for i := range 6 {
		address := fmt.Sprintf("198.51.100.%d", i)
		response, _ := s.getPath(t, "/", "X-Forwarded-For", address, "X-Real-Ip", address, "Forwarded", "for="+address)
		if want := map[bool]int{true: 200, false: 429}[i < 3]; response.StatusCode != want {
			t.Errorf("request %d: status %d, want %d", i+1, response.StatusCode, want)
		}
	}
}

func TestHeaderStyles(t *testing.T) {
	all := []string{"Ratelimit", "Ratelimit-Policy", "X-Ratelimit-Limit", "X-Ratelimit-Remaining", "X-Ratelimit-Reset"}
	s := newSite(t)
	defer stop(t)
	for style, want := range map[string][]string{"ietf": all[:2], "legacy": all[2:], "none": nil} {
		s.mustLoad(t, limit("style-"+style, 1, fmt.Sprintf(`, "headers": %q`, style)), hello)
		for _, status := range []int{200, 429} {
			response, _ := s.get(t, "192.0.2.1")
			var got []string
			for _, field := range all {
				if response.Header.Get(field) != "" {
					got = append(got, field)
				}
			}
			if diff := cmp.Diff(want, got); diff != "" || response.StatusCode != status {
				t.Errorf("%s: %d, want %d; fields (-want +got):\n%s", style, response.StatusCode, status, diff)
			}
			if after := response.Header.Get("Retry-After"); (after != "") != (status == 429) {
				t.Errorf("%s: %d with Retry-After %q", style, status, after)
			}
		}
	}
}
