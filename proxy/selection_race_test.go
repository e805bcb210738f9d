package proxy

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/isekai-gateway/isekai/store"
)

// passedOver is a policy that has passed over all targets, as Caddy's round robin may
// when others take turns at the same moment.
type passedOver struct{}

func (passedOver) Select(reverseproxy.UpstreamPool, *http.Request, http.ResponseWriter) *reverseproxy.Upstream {
	return nil
}

func TestTargetsThatThePolicyPassesOver(t *testing.T) {
	t.Parallel()
	lanes(t, func(t *testing.T, fast bool) {
		target := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("fine")) }))
		t.Cleanup(target.Close)
		g := newRig(t, fast, target.URL, &store.Upstream{Policy: "round_robin", Targets: []store.UpstreamTarget{{URL: target.URL}}})
		g.f.pool.policy = passedOver{}
		if status, body := g.do(t, http.MethodGet, "/", ""); status != http.StatusOK || body != "fine" {
			t.Errorf("%d %s", status, body)
		}
	})
}
