package deploytest

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// alertCase is a fault: what it makes of the samples of a sound fleet at the nth scrape
// since it began, and what is to fire therefore.
type alertCase struct {
	alert string
	fault func(samples []sample, n int) []sample
	also  []string // what must fire besides
}

// set gives the series with this name and these labels a value.
func set(value float64, name string, pairs ...string) func([]sample, int) []sample {
	return func(samples []sample, _ int) []sample {
		for i, s := range samples {
			if s.name() == name && s.with(pairs...) {
				samples[i].value = value
			}
		}
		return samples
	}
}

// grow has the series grow by some per second.
func grow(perSecond float64, name string, pairs ...string) func([]sample, int) []sample {
	return func(samples []sample, n int) []sample {
		for i, s := range samples {
			if s.name() == name && s.with(pairs...) {
				samples[i].value += perSecond * scrapeEvery.Seconds() * float64(n)
			}
		}
		return samples
	}
}

// slow has one observation a second in the buckets from a bound on.
func slow(from float64, name string, pairs ...string) func([]sample, int) []sample {
	return func(samples []sample, n int) []sample {
		for i, s := range samples {
			if bound, err := strconv.ParseFloat(s.labels.Get("le"), 64); s.name() == name && err == nil && bound >= from && s.with(pairs...) {
				samples[i].value += scrapeEvery.Seconds() * float64(n)
			}
		}
		return samples
	}
}

// all are several faults at once.
func all(faults ...func([]sample, int) []sample) func([]sample, int) []sample {
	return func(samples []sample, n int) []sample {
		for _, f := range faults {
			samples = f(samples, n)
		}
		return samples
	}
}

const first, second = "gateway-1:9180", "gateway-2:9180"

var alertCases = []alertCase{
	{alert: "IsekaiDown", fault: func(samples []sample, _ int) []sample {
		return slices.DeleteFunc(set(0, "up", "instance", first)(samples, 0), func(s sample) bool {
			return s.name() != "up" && s.with("instance", first)
		})
	}},
	{alert: "IsekaiNotReady", fault: func(samples []sample, _ int) []sample {
		return slices.DeleteFunc(samples, func(s sample) bool { return s.name() == "isekai_revision" && s.with("instance", second) })
	}},
	{alert: "IsekaiErrorsHigh", fault: all(
		grow(9, "isekai_requests_total", "route", "1", "method", "GET", "code", "200", "instance", first),
		grow(1, "isekai_requests_total", "route", "6", "code", "503", "instance", first),
	), also: []string{"IsekaiRouteErrorsHigh"}},
	{alert: "IsekaiRouteErrorsHigh", fault: all(
		grow(99, "isekai_requests_total", "route", "1", "method", "GET", "code", "200", "instance", first),
		grow(1, "isekai_requests_total", "route", "6", "code", "503", "instance", first),
	)},
	{alert: "IsekaiLatencyHigh", fault: all(
		grow(1, "isekai_requests_total", "route", "1", "method", "GET", "code", "200", "instance", first),
		slow(5, "isekai_request_duration_seconds_bucket", "route", "1", "instance", first),
	)},
	{alert: "IsekaiShedding", fault: grow(0.5, "isekai_requests_shed_total", "instance", first)},
	{alert: "IsekaiRateLimitBackendDown", fault: set(0, "isekai_ratelimit_backend_up", "instance", first)},
	{alert: "IsekaiPoolDown", fault: set(0, "isekai_upstream_healthy", "instance", first)},
	{alert: "IsekaiTargetDown", fault: func(samples []sample, n int) []sample {
		// One of the two targets of a pool, on both gateways.
		pools := make(map[string][]string)
		for _, s := range samples {
			if s.name() == "isekai_upstream_healthy" && s.with("instance", first) {
				pools[s.labels.Get("pool")] = append(pools[s.labels.Get("pool")], s.labels.Get("upstream"))
			}
		}
		for _, pool := range slices.Sorted(maps.Keys(pools)) {
			if len(pools[pool]) == 2 {
				return set(0, "isekai_upstream_healthy", "pool", pool, "upstream", pools[pool][0])(samples, n)
			}
		}
		return samples
	}},
	{alert: "IsekaiBreakerOpen", fault: grow(0.01, "isekai_upstream_breaker_opened_total", "instance", first)},
	{alert: "IsekaiRetriesDenied", fault: grow(0.1, "isekai_upstream_retries_denied_total", "instance", first)},
	{alert: "IsekaiStoreDown", fault: set(0, "isekai_store_up", "instance", first)},
	{alert: "IsekaiStoreErrors", fault: grow(0.1, "isekai_store_errors_total", "call", "read", "instance", first)},
	{alert: "IsekaiStoreSlow", fault: slow(2.5, "isekai_store_duration_seconds_bucket", "call", "read", "instance", first)},
	{alert: "IsekaiTableStale", fault: grow(1, "isekai_table_age_seconds", "instance", first)},
	{alert: "IsekaiRevisionBehind", fault: func(samples []sample, n int) []sample {
		if n == 0 {
			return samples
		}
		return set(1000, "isekai_revision", "instance", second)(samples, n) // and the first does not follow
	}},
	{alert: "IsekaiPropagationSlow", fault: slow(10, "isekai_propagation_seconds_bucket", "instance", first)},
	{alert: "IsekaiRoutesBroken", fault: set(3, "isekai_routes", "state", "broken")},
	{alert: "IsekaiRouteSetupFails", fault: grow(0.1, "isekai_cache_failures_total", "instance", first)},
	{alert: "IsekaiCacheThrash", fault: all(
		grow(10, "isekai_cache_hits_total", "instance", first), grow(10, "isekai_cache_misses_total", "instance", first),
		grow(10, "isekai_cache_evictions_total", "instance", first),
	)},
	{alert: "IsekaiRequestLogFills", fault: set(60_000, "isekai_request_log_queued", "instance", first)},
	{alert: "IsekaiRequestLogDrops", fault: grow(2, "isekai_request_log_dropped_total", "instance", first)},
	{alert: "IsekaiCertificateExpires", fault: set(unix(began.Add(time.Hour)), "isekai_certificate_not_after_timestamp_seconds", "instance", first)},
	{alert: "IsekaiCertificateFails", fault: set(2, "isekai_certificate_failing_hosts", "instance", first)},
}

func unix(at time.Time) float64 { return float64(at.Unix()) }

// sound returns samples of a fleet in which nothing is wrong or happens.
func sound(f fleet) []sample {
	samples := slices.Clone(f.last())
	set(1, "isekai_upstream_healthy")(samples, 0)
	set(1, "isekai_table_age_seconds")(samples, 0)
	set(0, "isekai_request_log_queued")(samples, 0)
	set(unix(began.Add(-10*time.Hour)), "isekai_certificate_not_before_timestamp_seconds")(samples, 0)
	set(unix(began.Add(20*time.Hour)), "isekai_certificate_not_after_timestamp_seconds")(samples, 0)
	return set(100, "isekai_revision")(samples, 0)
}

// TestAlertsFire has each alert fire for what it is meant for, alone, and no earlier.
func TestAlertsFire(t *testing.T) {
	t.Parallel()
	base := sound(scrapedFleet(t))
	base = slices.DeleteFunc(base, func(s sample) bool { return s.native != nil }) // the alerts read none
	const quiet, faulty = 4, 60
	for _, c := range alertCases {
		t.Run(c.alert, func(t *testing.T) {
			t.Parallel()
			db := newDatabase(t)
			r := newRuler(t, db.storage, db.engine)
			at := began
			step := func(samples []sample) {
				db.add(at, samples)
				r.evaluate(at)
				at = at.Add(scrapeEvery)
			}
			for range quiet {
				step(base)
				if got := r.firing(); len(got) > 0 {
					t.Fatalf("without a fault, these fire: %v", slices.Collect(maps.Keys(got)))
				}
			}
			for n := range faulty {
				step(c.fault(slices.Clone(base), n))
			}
			got := r.firing()
			want := append([]string{c.alert}, c.also...)
			slices.Sort(want)
			if names := slices.Sorted(maps.Keys(got)); !slices.Equal(names, want) {
				t.Fatalf("these fire: %q, want %q", names, want)
			}
			for _, a := range got[c.alert] {
				checkTexts(t, a)
				if i := a.Labels.Get("instance"); i != "" && i != first && i != second {
					t.Errorf("it is of %q", i)
				}
			}
			// When the fault is over, so is the alert.
			for range faulty {
				step(quietAfter(c, base, faulty))
			}
			if got := r.firing(); len(got) > 0 {
				t.Errorf("after the fault, these fire: %v", got)
			}
		})
	}
}

// quietAfter returns the samples after n rounds of a fault: counters stay where they
// came, and the rest is as before.
func quietAfter(c alertCase, base []sample, n int) []sample {
	values := make(map[string]float64)
	for _, s := range c.fault(slices.Clone(base), n) {
		if counts(s.name()) {
			values[s.labels.String()] = s.value
		}
	}
	samples := slices.Clone(base)
	for i, s := range samples {
		if v, ok := values[s.labels.String()]; ok {
			samples[i].value = v
		}
	}
	return samples
}

func counts(name string) bool {
	return strings.HasSuffix(name, "_total") || strings.HasSuffix(name, "_bucket") || strings.HasSuffix(name, "_count") || strings.HasSuffix(name, "_sum")
}
