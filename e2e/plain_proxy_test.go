package e2e_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// TestModulesWithoutRoutes uses what routes have in an ordinary reverse_proxy of
// Caddy's: the weighted selection policy and the circuit breaker.
func TestModulesWithoutRoutes(t *testing.T) {
	t.Parallel()
	a, b, c := newBackend(t, "a"), newBackend(t, "b"), newBackend(t, "c")
	plain, broken := freePort(t), freePort(t)
	g := startGateway(t, settings{sites: fmt.Sprintf(`
http://:%d {
	bind 127.0.0.1
	reverse_proxy %s %s {
		lb_policy isekai_weighted {header.X-User} {
			%s 0
			%s 3
		}
	}
}
`, plain, a.address, b.address, a.address, b.address)})
	at := func(port int) string {
		t.Helper()
		resp, err := g.client.Get(fmt.Sprintf("http://127.0.0.1:%d/", port))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		return resp.Status
	}
	for range 10 {
		at(plain)
	}
	if a.hits.Load() != 0 || b.hits.Load() != 10 {
		t.Errorf("weights of 0 and 3 give %d and %d requests", a.hits.Load(), b.hits.Load())
	}

	c.status(500)
	server := fmt.Sprintf(`{"listen":["127.0.0.1:%d"],"automatic_https":{"disable":true},"routes":[{"handle":[{"handler":"reverse_proxy",
		"upstreams":[{"dial":%q}],"circuit_breaker":{"type":"isekai","min_requests":3,"open_for":"1h"}}]}]}`, broken, c.address)
	if got := g.call(http.MethodPut, "/config/apps/http/servers/broken", []byte(server)); got.status != http.StatusOK {
		t.Fatalf("adding a server: %s", got)
	}
	for i, want := range []string{"500 Internal Server Error", "500 Internal Server Error", "500 Internal Server Error", "503 Service Unavailable", "503 Service Unavailable"} {
		if got := at(broken); got != want {
			t.Errorf("answer %d is %s, want %s", i, got, want)
		}
	}
	server = fmt.Sprintf(`{"handler":"reverse_proxy","upstreams":[{"dial":%q}],"circuit_breaker":{"type":"isekai","failure_ratio":2}}`, c.address)
	if got := g.call(http.MethodPost, "/config/apps/http/servers/broken/routes/0/handle", []byte(server)); got.status == http.StatusOK || !strings.Contains(string(got.body), "failure_ratio: must be") {
		t.Errorf("a ratio of 2 is answered %s", got)
	}
}
