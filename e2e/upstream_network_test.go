package e2e_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// TestUpstreamNetworkFaults puts a bad network before one of two upstreams. The other
// one's requests notice nothing, and when the network is well again so are all.
func TestUpstreamNetworkFaults(t *testing.T) {
	t.Parallel()
	const size = 64 << 10
	for name, fault := range map[string]struct {
		kind       string
		attributes map[string]int
		status     int  // of a request meanwhile
		whole      bool // or not: the answer breaks off
	}{
		"slow":      {"latency", map[string]int{"latency": 300}, http.StatusOK, true},
		"narrow":    {"bandwidth", map[string]int{"rate": 64}, http.StatusOK, true},
		"in slices": {"slicer", map[string]int{"average_size": 1000, "size_variation": 500, "delay": 100}, http.StatusOK, true},
		"breaks":    {"limit_data", map[string]int{"bytes": size / 2}, http.StatusOK, false},
		"reset":     {"reset_peer", map[string]int{"timeout": 0}, http.StatusBadGateway, true},
		"half-open": {"timeout", map[string]int{"timeout": 0}, http.StatusGatewayTimeout, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			text := strings.Repeat("x", size)
			u, err := url.Parse(textUpstream(t, text))
			if err != nil {
				t.Fatal(err)
			}
			network := newToxic(t, u.Host)
			g := startGateway(t, settings{})
			seconds := 30
			if fault.status == http.StatusGatewayTimeout {
				seconds = 1
			}
			g.create(route{Path: "/far", TargetURL: "http://" + network.proxy.Listen, Timeout: &seconds})
			g.create(route{Path: "/near", TargetURL: textUpstream(t, "near")})
			for range 3 {
				g.wantBody("/far", text) // connections that are kept
			}
			l := g.startLoad(2, "/near", is("near"))
			l.more(20)
			network.poison(fault.kind, fault.attributes)
			for range 3 {
				a, err := g.trySend(http.MethodGet, "/far")
				switch {
				case a.status != fault.status:
					t.Errorf("the answer is %.200s, %v", a, err)
				case !fault.whole && (err == nil || len(a.body) >= size):
					t.Errorf("%d of %d bytes look whole", len(a.body), size)
				case fault.whole && fault.status == http.StatusOK && (err != nil || string(a.body) != text):
					t.Errorf("%d of %d bytes came, %v", len(a.body), size, err)
				case fault.status != http.StatusOK:
					wantProblem(t, a, fault.status)
				}
			}
			l.more(20)
			network.heal(fault.kind)
			g.waitBody("/far", text)
			for range 3 {
				g.wantBody("/far", text)
			}
			l.wantNoLoss()
		})
	}
}
