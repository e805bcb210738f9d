package isekai_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
)

// families returns what a scraper gets, which takes native histograms only in the
// binary format.
func (s *server) families() map[string]*dto.MetricFamily {
	s.t.Helper()
	res := s.do("GET", s.admin+"/metrics", "", "Accept", string(expfmt.NewFormat(expfmt.TypeProtoDelim)))
	decoder := expfmt.NewDecoder(strings.NewReader(res.body), expfmt.ResponseFormat(res.Header))
	families := make(map[string]*dto.MetricFamily)
	for {
		var f dto.MetricFamily
		if err := decoder.Decode(&f); err != nil {
			if err == io.EOF { //nolint:errorlint // as decoders return it
				return families
			}
			s.t.Fatal(err)
		}
		families[f.GetName()] = &f
	}
}

// metric returns the sample of a metric with these values of labels, or nil.
func metric(f *dto.MetricFamily, labels ...string) *dto.Metric {
	for _, m := range f.GetMetric() {
		var values []string
		for _, l := range m.Label {
			values = append(values, l.GetValue())
		}
		slices.Sort(values)
		slices.Sort(labels)
		if slices.Equal(values, labels) {
			return m
		}
	}
	return nil
}

func TestMetrics(t *testing.T) {
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") }))
	defer upstream.Close()
	s := start(t, quickLog)
	s.create(route{"name": "a", "path": "/a", "target_url": upstream.URL, "method": "*"})
	s.create(route{"path": "/off", "target_url": upstream.URL, "enabled": false})
	for range 3 {
		s.get("/a")
	}
	s.do("POST", s.site+"/a", "12345")
	s.do("BREW", s.site+"/a", "")
	s.get("/nowhere")
	if err := s.load(quickLog); err != nil { // counters go on
		t.Fatal(err)
	}
	s.get("/a")

	families := s.families()
	value := func(name string, labels ...string) float64 {
		t.Helper()
		switch m := metric(families[name], labels...); {
		case m == nil:
			t.Fatalf("no %s %v among %v", name, labels, families[name])
		case m.Counter != nil:
			return m.Counter.GetValue()
		default:
			return m.Gauge.GetValue()
		}
		return 0
	}
	for _, tt := range []struct {
		want   float64
		name   string
		labels []string
	}{
		{4, "isekai_requests_total", []string{"1", "GET", "200"}},
		{1, "isekai_requests_total", []string{"1", "POST", "200"}},
		{1, "isekai_requests_total", []string{"1", "_OTHER", "200"}},
		{1, "isekai_requests_total", []string{"_none", "GET", "404"}},
		{5, "isekai_request_body_bytes_total", []string{"1"}},
		{30, "isekai_response_body_bytes_total", []string{"1"}},
		{1, "isekai_route_info", []string{"1", "a", "", "/a"}},
		{0, "isekai_requests_in_flight", nil},
		{1, "isekai_routes", []string{"served"}},
		{1, "isekai_routes", []string{"disabled"}},
		{0, "isekai_routes", []string{"broken"}},
		{2, "isekai_revision", nil},
		{1, "isekai_cache_entries", nil},
		{2, "isekai_cache_misses_total", nil}, // before the reload and after it
		{4, "isekai_cache_hits_total", nil},
		{1, "isekai_store_up", nil},
		{0, "isekai_store_errors_total", []string{"write"}},
	} {
		if got := value(tt.name, tt.labels...); got != tt.want {
			t.Errorf("%s %v is %v, want %v", tt.name, tt.labels, got, tt.want)
		}
	}

	for name, labels := range map[string][]string{
		"isekai_request_duration_seconds": {"1"}, "isekai_upstream_duration_seconds": {"1"}, "isekai_store_duration_seconds": {"write"},
	} {
		h := metric(families[name], labels...).GetHistogram()
		if h.GetSampleCount() == 0 || h.GetSampleSum() <= 0 || len(h.GetPositiveSpan()) == 0 || len(h.GetBucket()) == 0 || h.GetSchema() != 3 {
			t.Errorf("%s: %v", name, h)
		}
	}
	if n := metric(families["isekai_request_duration_seconds"], "1").GetHistogram().GetSampleCount(); n != 6 {
		t.Errorf("%d durations", n)
	}

	text := s.do("GET", s.admin+"/metrics", "").body
	problems, err := promlint.New(bytes.NewReader([]byte(text))).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "isekai_") {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
}

func TestMetricsOfManyRoutes(t *testing.T) {
	upstream := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer upstream.Close()
	s := start(t, func(cfg map[string]any) { isekaiApp(cfg)["max_series"] = 1 })
	for _, path := range []string{"/a", "/b", "/c"} {
		s.create(route{"path": path, "target_url": upstream.URL})
		s.get(path)
	}
	requests := s.families()["isekai_requests_total"]
	if metric(requests, "1", "GET", "200") == nil || metric(requests, "_other", "GET", "200").GetCounter().GetValue() != 2 || metric(requests, "2", "GET", "200") != nil {
		t.Errorf("series %v", requests)
	}
}
