package deploytest

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/isekai-gateway/isekai/internal/pgtest"
)

const (
	// rounds of traffic, with a scrape after each. They are dated scrapeEvery apart,
	// however fast they are: together they show 25 minutes, more than any alert waits.
	rounds      = 51
	scrapeEvery = 30 * time.Second
)

// began is when the first scrape is said to have been.
var began = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

// fleet is what two gateways on one database say to scrapes under traffic.
type fleet struct {
	instances []string
	scrapes   [][]sample // by round; those of both gateways together
}

// last returns the samples of the last scrapes.
func (f fleet) last() []sample { return f.scrapes[len(f.scrapes)-1] }

// end is when the last scrape is said to have been.
func (f fleet) end() time.Time { return began.Add(time.Duration(len(f.scrapes)-1) * scrapeEvery) }

var (
	fleetOnce   sync.Once
	sharedFleet fleet
)

// scrapedFleet returns the scrapes that the tests share, none of which changes them.
func scrapedFleet(t *testing.T) fleet {
	t.Helper()
	fleetOnce.Do(func() { sharedFleet = runFleet(t) })
	if len(sharedFleet.scrapes) != rounds {
		t.Fatal("there is no traffic to look at: see the test that made it")
	}
	return sharedFleet
}

// runFleet starts two gateways, and makes requests of all kinds in every round.
func runFleet(t *testing.T) fleet {
	t.Helper()
	dsn := pgtest.New(t)
	a := startGateway(t, dsn)
	b := startGateway(t, dsn)
	answer := func(status int, body string) string {
		return newUpstream(t, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		})
	}
	good, failing := answer(http.StatusOK, "hello, world"), answer(http.StatusInternalServerError, "no")
	aborting := newUpstream(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	release, held := make(chan struct{}), make(chan struct{}, 2)
	holding := newUpstream(t, func(http.ResponseWriter, *http.Request) {
		held <- struct{}{}
		<-release
	})
	targets := func(urls ...string) (list []any) {
		for _, u := range urls {
			list = append(list, map[string]any{"url": u})
		}
		return list
	}

	orders := a.create(map[string]any{"name": "orders", "host": "shop.example", "path": "/orders", "method": "*", "target_url": good,
		"upstream": map[string]any{"targets": targets(good, answer(http.StatusOK, "hello again"))}})
	a.create(map[string]any{"name": "limited", "path": "/limited", "target_url": good, "rate_limit": 20, "limits": map[string]any{"window": 3600}})
	a.create(map[string]any{"name": "dry", "path": "/dry", "target_url": good, "rate_limit": 1, "limits": map[string]any{"window": 3600, "dry_run": true}})
	a.create(map[string]any{"name": "missing", "path": "/missing", "target_url": answer(http.StatusNotFound, "no such thing")})
	a.create(map[string]any{"name": "refused", "path": "/refused", "target_url": "http://" + freeAddress(t)})
	a.create(map[string]any{"name": "breaking", "path": "/breaking", "target_url": failing, "upstream": map[string]any{
		"circuit_breaker": map[string]any{"failure_ratio": 0.5, "min_requests": 3, "window": 3600, "open_for": 3600, "probes": 1}}})
	a.create(map[string]any{"name": "retried", "path": "/retried", "target_url": aborting, "upstream": map[string]any{
		"targets": targets(aborting, good), "policy": "first", "retry": map[string]any{"budget_percent": 100}}})
	a.create(map[string]any{"name": "denied", "path": "/denied", "target_url": aborting, "upstream": map[string]any{
		"targets": targets(aborting, good), "policy": "first", "retry": map[string]any{"budget_percent": 0, "budget_min": 0}}})
	a.create(map[string]any{"name": "busy", "path": "/busy", "target_url": holding, "limits": map[string]any{"max_concurrent": 1}})
	a.create(map[string]any{"path": "/off", "target_url": good, "enabled": false})

	f := fleet{instances: []string{"gateway-1:9180", "gateway-2:9180"}}
	gateways := []*gateway{a, b}
	eventually(t, "the second gateway has the routes", func() error {
		want, got := a.call(http.MethodGet, "/health", nil, http.StatusOK)["revision"], b.call(http.MethodGet, "/health", nil, http.StatusOK)["revision"]
		if got != want {
			return fmt.Errorf("it is at revision %v, the first at %v", got, want)
		}
		return nil
	})
	eventually(t, "both have the certificate of shop.example", func() error {
		for i, g := range gateways {
			has := func(s sample) bool {
				return s.name() == "isekai_certificate_not_after_timestamp_seconds" && s.with("host", "shop.example")
			}
			if !slices.ContainsFunc(g.scrape(f.instances[i]), has) {
				return fmt.Errorf("gateway %d has not", i+1)
			}
		}
		return nil
	})
	var streams sync.WaitGroup
	defer streams.Wait()
	defer close(release)
	for _, g := range gateways {
		streams.Go(func() {
			if resp, err := g.client.Get("http://" + g.site + "/busy"); err == nil {
				resp.Body.Close()
			}
		})
		select {
		case <-held:
		case <-time.After(startTimeout):
			t.Fatal("the request that is held does not come to its upstream")
		}
	}

	for round := range rounds {
		for i, g := range gateways {
			// More in the middle than at the ends, so that a plot has a shape.
			for range 2 + min(round, rounds-round)/6 + 2*i {
				g.expect(http.MethodGet, "/orders", "", http.StatusOK)
			}
			g.expect(http.MethodPost, "/orders", "an order", http.StatusOK)
			g.expect(http.MethodGet, "/limited", "", http.StatusOK, http.StatusTooManyRequests)
			g.expect(http.MethodGet, "/dry", "", http.StatusOK)
			g.expect(http.MethodGet, "/missing", "", http.StatusNotFound)
			g.expect(http.MethodGet, "/refused", "", http.StatusBadGateway)
			g.expect(http.MethodGet, "/breaking", "", http.StatusInternalServerError, http.StatusServiceUnavailable)
			g.expect(http.MethodGet, "/retried", "", http.StatusOK)
			g.expect(http.MethodGet, "/denied", "", http.StatusBadGateway)
			g.expect(http.MethodGet, "/busy", "", http.StatusServiceUnavailable)
			g.expect(http.MethodGet, "/nowhere", "", http.StatusNotFound)
			g.expect(http.MethodGet, "/off", "", http.StatusNotFound)
		}
		if round%10 == 5 {
			a.call(http.MethodPatch, fmt.Sprintf("/api/routes/%d", orders), map[string]any{"labels": map[string]any{"round": fmt.Sprint(round)}}, http.StatusOK)
		}
		var samples []sample
		for i, g := range gateways {
			samples = append(samples, g.scrape(f.instances[i])...)
		}
		f.scrapes = append(f.scrapes, samples)
	}
	return f
}

// newUpstream serves the handler until the test ends.
func newUpstream(t testing.TB, handler http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(handler)
	t.Cleanup(s.Close)
	return s.URL
}
