package routing_test

import (
	"net/http"
	"testing"

	"github.com/isekai-gateway/isekai/routing"
	"github.com/isekai-gateway/isekai/store"
)

func TestMatchPreflight(t *testing.T) {
	t.Parallel()
	table := routing.NewTable([]*store.Route{
		row(1, "GET", "", "/a", headers("X-Env", "beta")),
		row(2, "GET", "", "/a", headers("X-Env", "*", "X-User", "*")),
		row(3, "POST", "", "/a", headers("Origin", "https://app.test")),
		row(4, "GET", "", "/a"),
		row(5, "OPTIONS", "", "/a"),
	}, 5)
	tests := []struct {
		name   string
		method string
		header http.Header
		want   int64
	}{
		{"nothing named", "GET", nil, 4},
		{"the method decides", "OPTIONS", nil, 5},
		{"no route with the method", "PUT", nil, 0},
		{"a field that will be there", "GET", http.Header{"Access-Control-Request-Headers": {"x-env"}}, 1},
		{"among others", "GET", http.Header{"Access-Control-Request-Headers": {"content-type,  X-ENV\t,x-b"}}, 1},
		{"in another line", "GET", http.Header{"Access-Control-Request-Headers": {"content-type", "x-env"}}, 1},
		{"all of them", "GET", http.Header{"Access-Control-Request-Headers": {"x-env,x-user"}}, 2},
		{"part of a name", "GET", http.Header{"Access-Control-Request-Headers": {"x-en,x-envy,"}}, 4},
		{"a field of the preflight itself", "POST", http.Header{"Origin": {"https://app.test"}}, 3},
		{"another value of that", "POST", http.Header{"Origin": {"https://other.test"}}, 0},
		{"TRACE", "TRACE", nil, 0},
	}
	for _, tt := range tests {
		q := request(t, tt.method, "x", "/a")
		q.Header, q.Preflight = tt.header, true
		if got := id(table.Match(q)); got != tt.want {
			t.Errorf("%s: route %d, want %d", tt.name, got, tt.want)
		}
	}

	// Of a request that is none, the field means nothing.
	q := request(t, "GET", "x", "/a")
	q.Header = http.Header{"Access-Control-Request-Headers": {"x-env"}}
	if got := id(table.Match(q)); got != 4 {
		t.Errorf("no preflight: route %d, want 4", got)
	}
}
