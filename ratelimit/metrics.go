package ratelimit

import (
	"errors"
	"fmt"

	"github.com/caddyserver/caddy/v2"
	"github.com/prometheus/client_golang/prometheus"
)

// The metrics of shared backends.
var (
	backendRequests = prometheus.NewDesc("isekai_ratelimit_backend_requests_total",
		"Decisions asked of shared rate limit backends: ok, or why there was none: timeout, error, busy (too many in flight) "+
			"or open (the circuit breaker); fallback counts decisions that were made without a backend.",
		[]string{"backend", "result"}, nil)
	backendUp = prometheus.NewDesc("isekai_ratelimit_backend_up",
		"Whether a shared rate limit backend is asked: 1, or 0 while its circuit breaker is not closed.",
		[]string{"backend"}, nil)
)

// backendCollector reads the counters of all servers in use, those of one kind
// together.
type backendCollector struct{}

func registerMetrics(ctx caddy.Context) error {
	err := ctx.GetMetricsRegistry().Register(backendCollector{})
	if _, registered := errors.AsType[prometheus.AlreadyRegisteredError](err); registered || err == nil {
		return nil
	}
	return fmt.Errorf("registering metrics: %w", err)
}

// Describe implements prometheus.Collector.
func (backendCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- backendRequests
	ch <- backendUp
}

// Collect implements prometheus.Collector.
func (backendCollector) Collect(ch chan<- prometheus.Metric) {
	sums := make(map[string]GuardStats)
	servers.Range(func(_, value any) bool {
		s, ok := value.(*server)
		if !ok {
			return true // it is being opened
		}
		stats := s.guard.Stats()
		if sum, ok := sums[s.kind]; ok {
			stats.OK += sum.OK
			stats.Timeouts += sum.Timeouts
			stats.Errors += sum.Errors
			stats.Busy += sum.Busy
			stats.Open += sum.Open
			stats.Fallbacks += sum.Fallbacks
			stats.Up = stats.Up && sum.Up
		}
		sums[s.kind] = stats
		return true
	})
	for kind, stats := range sums {
		for result, count := range map[string]uint64{
			"ok": stats.OK, "timeout": stats.Timeouts, "error": stats.Errors, "busy": stats.Busy, "open": stats.Open,
			"fallback": stats.Fallbacks,
		} {
			ch <- prometheus.MustNewConstMetric(backendRequests, prometheus.CounterValue, float64(count), kind, result)
		}
		up := 0.0
		if stats.Up {
			up = 1
		}
		ch <- prometheus.MustNewConstMetric(backendUp, prometheus.GaugeValue, up, kind)
	}
}

// Interface guards
var (
	_ prometheus.Collector = backendCollector{}
)
