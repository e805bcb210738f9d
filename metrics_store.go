package isekai

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/isekai-gateway/isekai/gateway"
)

// The metrics of the store.
var (
	storeUp = prometheus.NewDesc("isekai_store_up",
		"Whether the last contact with the store went well.", nil, nil)
	storeConnections = prometheus.NewDesc("isekai_store_connections",
		"Connections to the store, by state: idle or in_use.", []string{"state"}, nil)
	storeDuration = prometheus.NewDesc("isekai_store_duration_seconds",
		"How long calls of the store took: read, load (all routes), write, and log (a batch of the request log).", []string{"call"}, nil)
	storeErrors = prometheus.NewDesc("isekai_store_errors_total",
		"Calls of the store that failed for a reason of its own.", []string{"call"}, nil)
)

var storeMetrics = []*prometheus.Desc{storeUp, storeConnections, storeDuration, storeErrors}

func collectStore(ch chan<- prometheus.Metric, g *gateway.Gateway) {
	status := g.StoreStatus()
	up := 0.0
	if status.Up {
		up = 1
	}
	gauge(ch, storeUp, up)
	gauge(ch, storeConnections, float64(status.Open-status.InUse), "idle")
	gauge(ch, storeConnections, float64(status.InUse), "in_use")
	for call, c := range g.StoreCalls.All() {
		histogram(ch, storeDuration, &c.Durations, g.Started(), call)
		counter(ch, storeErrors, float64(c.Errors.Load()), call)
	}
}
