package deploytest

import (
	"context"
	"errors"
	"io"
	"maps"
	"math"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/textparse"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/util/teststorage"
)

// job is the name that prometheus.yml gives the gateways.
const job = "isekai"

// sample is a series at the time of a scrape.
type sample struct {
	labels labels.Labels
	value  float64
	native *histogram.Histogram // if the series is a native histogram
}

func (s sample) name() string { return s.labels.Get(model.MetricNameLabel) }

// with returns whether the sample has all of these labels, given by name and value.
func (s sample) with(pairs ...string) bool {
	for pair := range slices.Chunk(pairs, 2) {
		if s.labels.Get(pair[0]) != pair[1] {
			return false
		}
	}
	return true
}

// scrape asks for the metrics as Prometheus does by prometheus.yml: in the binary format,
// which alone has native histograms, keeping the classic ones.
func (g *gateway) scrape(instance string) []sample {
	g.t.Helper()
	req, err := http.NewRequest(http.MethodGet, "http://"+g.metrics+"/metrics", nil)
	if err != nil {
		g.t.Fatal(err)
	}
	req.Header.Set("Accept", "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,text/plain;version=0.0.4;q=0.2")
	resp, err := g.client.Do(req)
	if err != nil {
		g.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		g.t.Fatalf("the scrape answers %d %s (%v)", resp.StatusCode, text, err)
	}
	p, err := textparse.New(text, resp.Header.Get("Content-Type"), labels.NewSymbolTable(), textparse.ParserOptions{KeepClassicOnClassicAndNativeHistograms: true})
	if err != nil {
		g.t.Fatalf("reading the scrape: %v", err)
	}
	scraped := labels.FromStrings("job", job, "instance", instance)
	up := labels.NewBuilder(scraped).Set(model.MetricNameLabel, "up").Labels()
	samples := []sample{{labels: up, value: 1}} // which Prometheus adds
	for {
		entry, err := p.Next()
		if errors.Is(err, io.EOF) {
			return samples
		}
		if err != nil {
			g.t.Fatalf("reading the scrape: %v", err)
		}
		var s sample
		switch entry {
		case textparse.EntrySeries:
			_, _, s.value = p.Series()
		case textparse.EntryHistogram:
			_, _, h, _ := p.Histogram()
			s.native = h
		default:
			continue
		}
		p.Labels(&s.labels)
		b := labels.NewBuilder(s.labels)
		scraped.Range(func(l labels.Label) { b.Set(l.Name, l.Value) })
		s.labels = b.Labels()
		if strings.HasPrefix(s.name(), "isekai_") {
			samples = append(samples, s)
		}
	}
}

// labelsByName returns for each metric the labels that any of its series has.
func labelsByName(samples []sample) map[string]map[string]bool {
	names := make(map[string]map[string]bool)
	for _, s := range samples {
		if names[s.name()] == nil {
			names[s.name()] = make(map[string]bool)
		}
		s.labels.Range(func(l labels.Label) { names[s.name()][l.Name] = true })
	}
	return names
}

// database is a Prometheus without its server.
type database struct {
	t       testing.TB
	storage *teststorage.TestStorage
	engine  *promql.Engine
}

var promqlParser = parser.NewParser(parser.Options{})

func newDatabase(t testing.TB) *database {
	t.Helper()
	engine := promql.NewEngine(promql.EngineOpts{
		MaxSamples: 10_000_000, Timeout: time.Minute, EnableAtModifier: true, EnableNegativeOffset: true, Parser: promqlParser,
	})
	t.Cleanup(func() { _ = engine.Close() })
	return &database{t: t, storage: teststorage.New(t), engine: engine}
}

// add stores the samples of a scrape.
func (d *database) add(at time.Time, samples []sample) {
	d.t.Helper()
	a := d.storage.Appender(context.Background())
	for _, s := range samples {
		var err error
		if s.native != nil {
			_, err = a.AppendHistogram(0, s.labels, at.UnixMilli(), s.native, nil)
		} else {
			_, err = a.Append(0, s.labels, at.UnixMilli(), s.value)
		}
		if err != nil {
			d.t.Fatalf("storing %s: %v", s.labels, err)
		}
	}
	if err := a.Commit(); err != nil {
		d.t.Fatal(err)
	}
}

// addFleet stores everything that was scraped.
func (d *database) addFleet(f fleet) {
	d.t.Helper()
	for i, samples := range f.scrapes {
		d.add(began.Add(time.Duration(i)*scrapeEvery), samples)
	}
}

// series is a line of a graph: values by the labels that name it.
type series struct {
	labels map[string]string
	points []promql.FPoint
}

// median returns the median of the values, or NaN. It does not mind that now and then a
// request is counted only after its client has the answer, and the scrape was made.
func (s series) median() float64 {
	if len(s.points) == 0 {
		return math.NaN()
	}
	values := make([]float64, len(s.points))
	for i, p := range s.points {
		values[i] = p.F
	}
	slices.Sort(values)
	return values[len(values)/2]
}

// query evaluates an expression over the time of the scrapes, or at its end only.
// Points that are no number are left out, and series that have no other points.
func (d *database) query(expr string, end time.Time, instant bool) ([]series, error) {
	d.t.Helper()
	var q promql.Query
	var err error
	if instant {
		q, err = d.engine.NewInstantQuery(context.Background(), d.storage, nil, expr, end)
	} else {
		q, err = d.engine.NewRangeQuery(context.Background(), d.storage, nil, expr, began, end, scrapeEvery)
	}
	if err != nil {
		return nil, err
	}
	defer q.Close()
	res := q.Exec(context.Background())
	if res.Err != nil {
		return nil, res.Err
	}
	if len(res.Warnings) > 0 {
		return nil, errors.Join(slices.Collect(maps.Values(res.Warnings))...)
	}
	var all []series
	add := func(l labels.Labels, points []promql.FPoint) {
		points = slices.DeleteFunc(slices.Clone(points), func(p promql.FPoint) bool { return math.IsNaN(p.F) || math.IsInf(p.F, 0) })
		if len(points) > 0 {
			all = append(all, series{labels: l.Map(), points: points})
		}
	}
	switch v := res.Value.(type) {
	case promql.Matrix:
		for _, s := range v {
			add(s.Metric, s.Floats)
		}
	case promql.Vector:
		for _, s := range v {
			add(s.Metric, []promql.FPoint{{T: s.T, F: s.F}})
		}
	case promql.Scalar:
		add(labels.EmptyLabels(), []promql.FPoint{{T: v.T, F: v.V}})
	}
	return all, nil
}
