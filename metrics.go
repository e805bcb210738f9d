package isekai

import (
	"slices"

	"github.com/caddyserver/caddy/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/isekai-gateway/isekai/gateway"
	"github.com/isekai-gateway/isekai/proxy"
)

// The metrics of the gateway as a whole.
var (
	requestsInFlight = prometheus.NewDesc("isekai_requests_in_flight",
		"Requests that are being answered, open streams included.", nil, nil)
	requestsShed = prometheus.NewDesc("isekai_requests_shed_total",
		"Requests refused because too many were in flight, in the gateway or of their route.", nil, nil)
	rateLimitDecisions = prometheus.NewDesc("isekai_ratelimit_decisions_total",
		"Requests to routes with rate limits: allowed, limited (answered 429), or, if the route only reports, over a limit (dry_run).", []string{"decision"}, nil)

	routes = prometheus.NewDesc("isekai_routes",
		"Routes, by state: served, disabled, or broken (they can't be served, and /api/routes says why).", []string{"state"}, nil)
	revision = prometheus.NewDesc("isekai_revision",
		"The revision of the routes that are served.", nil, nil)
	tableAge = prometheus.NewDesc("isekai_table_age_seconds",
		"Seconds since the served routes were last known to be current.", nil, nil)

	cacheEntries = prometheus.NewDesc("isekai_cache_entries",
		"Compiled routes in the cache.", nil, nil)
	cacheHits = prometheus.NewDesc("isekai_cache_hits_total",
		"Requests whose route was in the cache.", nil, nil)
	cacheMisses = prometheus.NewDesc("isekai_cache_misses_total",
		"Requests whose route was not in the cache.", nil, nil)
	cacheEvictions = prometheus.NewDesc("isekai_cache_evictions_total",
		"Compiled routes that expired or made room.", nil, nil)
	cacheFailures = prometheus.NewDesc("isekai_cache_failures_total",
		"Routes that could not be set up.", nil, nil)

	logQueued = prometheus.NewDesc("isekai_request_log_queued",
		"Requests that wait to be written to the request log.", nil, nil)
	logCapacity = prometheus.NewDesc("isekai_request_log_capacity",
		"Requests that can wait to be written to the request log.", nil, nil)
	logWritten = prometheus.NewDesc("isekai_request_log_written_total",
		"Requests written to the request log.", nil, nil)
	logDropped = prometheus.NewDesc("isekai_request_log_dropped_total",
		"Requests that are not in the request log since its queue was full.", nil, nil)
)

var gatewayMetrics = []*prometheus.Desc{
	requestsInFlight, requestsShed, rateLimitDecisions, routes, revision, tableAge,
	cacheEntries, cacheHits, cacheMisses, cacheEvictions, cacheFailures, logQueued, logCapacity, logWritten, logDropped,
}

// collector reads metrics when they are asked for. It belongs to one configuration, and
// what it reads to the process, so that a reload sets no counter back.
type collector struct {
	gateway      *gateway.Gateway
	pools        func() []proxy.PoolStatus
	certificates *certificateSurvey
}

// registerMetrics adds the app's metrics to those of its configuration.
func registerMetrics(ctx caddy.Context, c collector) error {
	return ctx.GetMetricsRegistry().Register(c)
}

// Describe implements prometheus.Collector.
func (collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range slices.Concat(gatewayMetrics, trafficMetrics, storeMetrics, upstreamMetrics, certificateMetrics) {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	collectGateway(ch, c.gateway)
	collectTraffic(ch, c.gateway)
	collectStore(ch, c.gateway)
	collectUpstreams(ch, c.pools())
	c.certificates.collect(ch)
}

func collectGateway(ch chan<- prometheus.Metric, g *gateway.Gateway) {
	requests := g.Requests.Snapshot()
	gauge(ch, requestsInFlight, float64(requests.InFlight))
	counter(ch, requestsShed, float64(requests.Shed))
	decisions := g.Decisions.Snapshot()
	counter(ch, rateLimitDecisions, float64(decisions.Allowed), "allowed")
	counter(ch, rateLimitDecisions, float64(decisions.Limited), "limited")
	counter(ch, rateLimitDecisions, float64(decisions.DryRun), "dry_run")

	if table := g.Table(); table != nil {
		served, broken := table.Served(), table.Broken()
		gauge(ch, routes, float64(served), "served")
		gauge(ch, routes, float64(broken), "broken")
		gauge(ch, routes, float64(table.Len()-served-broken), "disabled")
		gauge(ch, revision, float64(table.Revision()))
		gauge(ch, tableAge, g.Health().TableAge)
	}

	cached := g.CacheStats()
	gauge(ch, cacheEntries, float64(cached.Size))
	counter(ch, cacheHits, float64(cached.Hits))
	counter(ch, cacheMisses, float64(cached.Misses))
	counter(ch, cacheEvictions, float64(cached.Evictions))
	counter(ch, cacheFailures, float64(cached.Failures))

	log := g.RequestLog.Stats()
	gauge(ch, logQueued, float64(log.Queued))
	gauge(ch, logCapacity, float64(log.Capacity))
	counter(ch, logWritten, float64(log.Written))
	counter(ch, logDropped, float64(log.Dropped))
}

func gauge(ch chan<- prometheus.Metric, d *prometheus.Desc, value float64, labels ...string) {
	ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
}

func counter(ch chan<- prometheus.Metric, d *prometheus.Desc, value float64, labels ...string) {
	ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, value, labels...)
}

// Interface guards
var (
	_ prometheus.Collector = collector{}
)
