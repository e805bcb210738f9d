package isekai

import (
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/isekai-gateway/isekai/proxy"
	"github.com/isekai-gateway/isekai/ratelimit"
	"github.com/isekai-gateway/isekai/requestlog"
)

// upstreamLabels name a target in metrics.
var upstreamLabels = []string{"pool", "upstream"}

// The metrics of pools of targets, as /api/upstreams has them, and of rate limits.
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
	rateLimitDecisions = prometheus.NewDesc("isekai_ratelimit_decisions_total",
		"Requests to routes with rate limits: allowed, limited (answered 429), or, if the route only reports, over a limit (dry_run).", []string{"decision"}, nil)
)

// The metrics of the request log.
var (
	logQueued = prometheus.NewDesc("isekai_request_log_queued",
		"Requests that wait to be written to the request log.", nil, nil)
	logWritten = prometheus.NewDesc("isekai_request_log_written_total",
		"Requests written to the request log.", nil, nil)
	logDropped = prometheus.NewDesc("isekai_request_log_dropped_total",
		"Requests that are not in the request log since its queue was full.", nil, nil)
)

// collector reads the metrics of one configuration when they are asked for.
type collector struct {
	pools     func() []proxy.PoolStatus
	log       func() requestlog.Stats
	decisions *ratelimit.Tally
}

// registerMetrics adds the app's metrics to those of its configuration.
func registerMetrics(ctx caddy.Context, c collector) error {
	return ctx.GetMetricsRegistry().Register(c)
}

// Describe implements prometheus.Collector.
func (collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		upstreamHealthy, upstreamChanges, upstreamRequests, upstreamFailures, upstreamInFlight,
		upstreamBreakerOpened, upstreamRetries, upstreamRetriesDenied, rateLimitDecisions,
		logQueued, logWritten, logDropped,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	log := c.log()
	ch <- prometheus.MustNewConstMetric(logQueued, prometheus.GaugeValue, float64(log.Queued))
	ch <- prometheus.MustNewConstMetric(logWritten, prometheus.CounterValue, float64(log.Written))
	ch <- prometheus.MustNewConstMetric(logDropped, prometheus.CounterValue, float64(log.Dropped))
	decisions := c.decisions.Snapshot()
	for decision, n := range map[string]uint64{"allowed": decisions.Allowed, "limited": decisions.Limited, "dry_run": decisions.DryRun} {
		ch <- prometheus.MustNewConstMetric(rateLimitDecisions, prometheus.CounterValue, float64(n), decision)
	}
	for _, p := range c.pools() {
		ch <- prometheus.MustNewConstMetric(upstreamRetries, prometheus.CounterValue, float64(p.Retries), p.ID)
		ch <- prometheus.MustNewConstMetric(upstreamRetriesDenied, prometheus.CounterValue, float64(p.RetriesDenied), p.ID)
		for _, t := range p.Targets {
			_, address, _ := strings.Cut(t.URL, "://")
			send := func(d *prometheus.Desc, kind prometheus.ValueType, value float64) {
				ch <- prometheus.MustNewConstMetric(d, kind, value, p.ID, address)
			}
			healthy := 1.0
			if t.State != "healthy" || t.Breaker == "open" {
				healthy = 0
			}
			send(upstreamHealthy, prometheus.GaugeValue, healthy)
			send(upstreamChanges, prometheus.CounterValue, float64(t.Changes))
			send(upstreamRequests, prometheus.CounterValue, float64(t.Requests))
			send(upstreamFailures, prometheus.CounterValue, float64(t.Failures))
			send(upstreamInFlight, prometheus.GaugeValue, float64(t.InFlight))
			if t.Breaker != "" {
				send(upstreamBreakerOpened, prometheus.CounterValue, float64(t.BreakerOpened))
			}
		}
	}
}

// Interface guards
var (
	_ prometheus.Collector = collector{}
)
