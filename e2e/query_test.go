package e2e_test

import (
	"io"
	"net/http"
	"testing"
)

// TestQueryThatEndsTheRequestLine sends queries that HTTP/2 and HTTP/3 can carry and
// HTTP/1 can't: an upstream would be told another request line.
func TestQueryThatEndsTheRequestLine(t *testing.T) {
	t.Parallel()
	g := startGateway(t, settings{sites: tlsSite})
	g.create(route{Path: "/q", TargetURL: newUpstream(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.URL.RawQuery)
	}).URL})
	for _, v := range g.versions() {
		for query, want := range map[string]int{
			"a=b HTTP/1.0": http.StatusBadRequest, "a b": http.StatusBadRequest, " ": http.StatusBadRequest,
			"a=b%20c&d=+": http.StatusOK, "": http.StatusOK, "?;/:@!$'()*,": http.StatusOK,
		} {
			req, _ := v.request(t, http.MethodGet, "/q")
			req.URL.RawQuery = query
			resp := v.do(t, req)
			body, err := io.ReadAll(resp.Body)
			if err != nil || resp.StatusCode != want || want == http.StatusOK && string(body) != query {
				t.Errorf("%q over %s is answered %s %q (%v), want %d", query, v.name, resp.Status, body, err, want)
			}
		}
	}
}
