package isekai

import (
	"fmt"

	"github.com/caddyserver/caddy/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/isekai-gateway/isekai/gateway"
)

var revisionServed = prometheus.NewDesc("isekai_revision",
	"The revision of the routes that are served, 0 before they are loaded.", nil, nil)

// propagationCollector reads how changes come to this replica. The histogram belongs to
// the gateway, since it outlives configurations and their registries.
type propagationCollector struct{ gateway *gateway.Gateway }

// registerPropagationMetrics adds them to those of a configuration.
func registerPropagationMetrics(ctx caddy.Context, g *gateway.Gateway) error {
	if err := ctx.GetMetricsRegistry().Register(propagationCollector{g}); err != nil {
		return fmt.Errorf("registering metrics of propagation: %w", err)
	}
	return nil
}

// Describe implements prometheus.Collector.
func (c propagationCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- revisionServed
	c.gateway.Propagation.Describe(ch)
}

// Collect implements prometheus.Collector.
func (c propagationCollector) Collect(ch chan<- prometheus.Metric) {
	var revision int64
	if table := c.gateway.Table(); table != nil {
		revision = table.Revision()
	}
	ch <- prometheus.MustNewConstMetric(revisionServed, prometheus.GaugeValue, float64(revision))
	c.gateway.Propagation.Collect(ch)
}

// Interface guards
var (
	_ prometheus.Collector = propagationCollector{}
)
