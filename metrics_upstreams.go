package isekai

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/isekai-gateway/isekai/proxy"
)

// upstreamLabels name a target in metrics.
var upstreamLabels = []string{"pool", "upstream"}

// The metrics of pools of targets, as /api/upstreams has them.
var (
	upstreamHealthy = prometheus.NewDesc("isekai_upstream_healthy",
		"Whether a target may get requests: 1 if its checks pass and its circuit breaker is not open, else 0.", upstreamLabels, nil)
	upstreamChanges = prometheus.NewDesc("isekai_upstream_health_changes_total",
		"Changes of whether a target may get requests.", upstreamLabels, nil)
	upstreamRequests = prometheus.NewDesc("isekai_upstream_requests_total",
		"Tries of requests to a target.", upstreamLabels, nil)
	upstreamFailures = prometheus.NewDesc("isekai_upstream_failures_total",
		"Tries of requests to a target that failed to connect or to answer.", upstreamLabels, nil)
	upstreamInFlight = prometheus.NewDesc("isekai_upstream_in_flight",
		"Requests and streams that a target is busy with.", upstreamLabels, nil)
	upstreamBreakerOpened = prometheus.NewDesc("isekai_upstream_breaker_opened_total",
		"How often the circuit breaker of a target has opened.", upstreamLabels, nil)
	upstreamRetries = prometheus.NewDesc("isekai_upstream_retries_total",
		"Further tries of requests to a pool of targets.", []string{"pool"}, nil)
	upstreamRetriesDenied = prometheus.NewDesc("isekai_upstream_retries_denied_total",
		"Further tries of requests that a pool's retry budget did not allow.", []string{"pool"}, nil)
)

var upstreamMetrics = []*prometheus.Desc{
	upstreamHealthy, upstreamChanges, upstreamRequests, upstreamFailures, upstreamInFlight,
	upstreamBreakerOpened, upstreamRetries, upstreamRetriesDenied,
}

func collectUpstreams(ch chan<- prometheus.Metric, pools []proxy.PoolStatus) {
	for _, p := range pools {
		counter(ch, upstreamRetries, float64(p.Retries), p.ID)
		counter(ch, upstreamRetriesDenied, float64(p.RetriesDenied), p.ID)
		for _, t := range p.Targets {
			_, address, _ := strings.Cut(t.URL, "://")
			healthy := 1.0
			if t.State != "healthy" || t.Breaker == "open" {
				healthy = 0
			}
			gauge(ch, upstreamHealthy, healthy, p.ID, address)
			counter(ch, upstreamChanges, float64(t.Changes), p.ID, address)
			counter(ch, upstreamRequests, float64(t.Requests), p.ID, address)
			counter(ch, upstreamFailures, float64(t.Failures), p.ID, address)
			gauge(ch, upstreamInFlight, float64(t.InFlight), p.ID, address)
			if t.Breaker != "" {
				counter(ch, upstreamBreakerOpened, float64(t.BreakerOpened), p.ID, address)
			}
		}
	}
}
