package gateway_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/isekai-gateway/isekai/gateway"
)

func TestRequestCounters(t *testing.T) {
	t.Parallel()
	g := open(t, sqliteDSN(t), func(cfg *gateway.Config) { cfg.StatsInterval = 10 * time.Millisecond })
	for _, status := range []int{http.StatusOK, http.StatusNotFound, http.StatusBadGateway, http.StatusServiceUnavailable, 0} {
		g.Requests.Begin()
		g.Requests.End(status)
	}
	g.Requests.Shed()
	g.Requests.Begin()
	want := gateway.RequestStats{Total: 6, InFlight: 1, Refused: 1, Failed: 2, Shed: 1}
	if diff := cmp.Diff(want, g.Requests.Snapshot()); diff != "" {
		t.Error(diff)
	}
	eventually(t, "the counters are logged", func() bool {
		lines := g.logs.FilterMessage("stats").All()
		if len(lines) == 0 {
			return false
		}
		fields := lines[len(lines)-1].ContextMap()
		return fields["requests"] == int64(6) && fields["in_flight"] == int64(1) && fields["refused"] == int64(1) &&
			fields["errors"] == int64(2) && fields["shed"] == int64(1)
	})
}
