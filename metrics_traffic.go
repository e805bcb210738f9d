package isekai

import (
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/isekai-gateway/isekai/gateway"
	"github.com/isekai-gateway/isekai/stats"
)

// The metrics of requests by route. The label route is the route's number, `_none` for
// requests that no route matched, and `_other` for routes that are not counted apart.
var (
	requestsTotal = prometheus.NewDesc("isekai_requests_total",
		"Requests by route, method and status; the status is 499 if the client left before the answer.", []string{"route", "method", "code"}, nil)
	requestDuration = prometheus.NewDesc("isekai_request_duration_seconds",
		"Time from a request's header to its answer's end.", routeLabel, nil)
	upstreamDuration = prometheus.NewDesc("isekai_upstream_duration_seconds",
		"Time from sending a request to the last target that it was tried with to that target's header.", routeLabel, nil)
	requestBytes = prometheus.NewDesc("isekai_request_body_bytes_total",
		"Bytes of requests' bodies that were read.", routeLabel, nil)
	responseBytes = prometheus.NewDesc("isekai_response_body_bytes_total",
		"Bytes of answers' bodies.", routeLabel, nil)
	routeInfo = prometheus.NewDesc("isekai_route_info",
		"Says, with the value 1, what a route is.", []string{"route", "name", "host", "path"}, nil)
)

var routeLabel = []string{"route"}

var trafficMetrics = []*prometheus.Desc{requestsTotal, requestDuration, upstreamDuration, requestBytes, responseBytes, routeInfo}

func collectTraffic(ch chan<- prometheus.Metric, g *gateway.Gateway) {
	table := g.Table()
	for _, s := range g.Traffic.Series() {
		name := routeLabelOf(s.Route)
		for _, code := range s.Codes() {
			status := "_other"
			if code.Status != 0 {
				status = strconv.Itoa(code.Status)
			}
			counter(ch, requestsTotal, float64(code.Count), name, code.Method, status)
		}
		histogram(ch, requestDuration, &s.Requests, s.Began, name)
		histogram(ch, upstreamDuration, &s.Upstream, s.Began, name)
		in, out := s.Bytes()
		counter(ch, requestBytes, float64(in), name)
		counter(ch, responseBytes, float64(out), name)
		if table == nil {
			continue
		}
		if route := table.Route(s.Route); route != nil {
			gauge(ch, routeInfo, 1, name, labelText(route.Name()), labelText(route.Host()), labelText(route.Path()))
		}
	}
}

// labelText is a text of a row: SQLite takes some that Prometheus refuses.
func labelText(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

// routeLabelOf is the label of a series' route.
func routeLabelOf(id int64) string {
	switch id {
	case stats.None:
		return "_none"
	case stats.Other:
		return "_other"
	}
	return strconv.FormatInt(id, 10)
}

// histogram sends both kinds of buckets, of which a scraper takes what it knows.
func histogram(ch chan<- prometheus.Metric, d *prometheus.Desc, h *stats.Histogram, began time.Time, labels ...string) {
	s := h.Snapshot()
	ch <- bothHistograms{
		Metric: prometheus.MustNewConstHistogram(d, s.Count, s.Sum.Seconds(), s.Classic, labels...),
		native: prometheus.MustNewConstNativeHistogram(d, s.Count, s.Sum.Seconds(), s.Buckets, nil, 0, stats.Schema, 0, began, labels...),
	}
}

// bothHistograms is a histogram with classic buckets and native ones.
type bothHistograms struct {
	prometheus.Metric
	native prometheus.Metric
}

// Write implements prometheus.Metric.
func (b bothHistograms) Write(out *dto.Metric) error {
	var classic dto.Metric
	if err := b.Metric.Write(&classic); err != nil {
		return err
	}
	if err := b.native.Write(out); err != nil {
		return err
	}
	out.Histogram.Bucket = classic.Histogram.Bucket
	return nil
}
