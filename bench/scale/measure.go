package main

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/isekai-gateway/isekai/bench/internal/postgres"
	"github.com/isekai-gateway/isekai/bench/internal/report"
	"github.com/isekai-gateway/isekai/store"
)

// measurements are what a run has found.
type measurements struct {
	tables   []*tableFigures
	database *databaseFigures
	sizes    *sizeFigures
	starts   [2][]start // with one route, and with all
	loads    [3][]loadRound
	admin    []adminFigure
	pinned   bool
}

// start is a cold start of the binary.
type start struct {
	took, cpu time.Duration
	rss       float64
}

// The sorts of load: the same requests at one route and at all, and requests of all routes.
const (
	loadOne = iota
	loadAll
	loadSpread
)

func say(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

func measure(ctx context.Context, s settings) (_ *measurements, err error) {
	m := &measurements{pinned: canPin()}
	dir, err := os.MkdirTemp("", "isekai-scale-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if s.binary == "" {
		if s.binary, err = build(ctx, dir); err != nil {
			return nil, err
		}
	} else if s.binary, err = filepath.Abs(s.binary); err != nil {
		return nil, err
	}
	if err := m.processes(ctx, s, dir); err != nil {
		return nil, err
	}
	for _, n := range []int{1, 1000, s.routes, s.million} {
		if n == 0 {
			continue
		}
		say("a table of %d routes", n)
		f, err := measureTable(ctx, s, n)
		if err != nil {
			return nil, fmt.Errorf("a table of %d routes: %w", n, err)
		}
		m.tables = append(m.tables, f)
	}
	return m, nil
}

// sameHost is the host of the route that both databases have.
const sameHost = "same.example.com"

// processes measures what needs a database and the binary.
func (m *measurements) processes(ctx context.Context, s settings, dir string) error {
	backend, stopBackend, err := startBackend(ctx)
	if err != nil {
		return err
	}
	defer stopBackend()
	same := store.NewRoute("/same/{id}", backend)
	same.Host = sameHost
	rows := makeRows(s.routes, s.hosts)
	for _, row := range rows {
		row.TargetURL = backend + "/base"
	}
	var dsns [2]string
	for i, list := range [][]*store.Route{{same}, append(rows, same)} {
		server, err := postgres.Start()
		if err != nil {
			return err
		}
		defer server.Close()
		say("filling a database with %d routes", len(list))
		took, err := fill(ctx, server.DSN, list)
		if err != nil {
			return err
		}
		dsns[i] = server.DSN
		if i == 1 {
			if m.database, err = measureDatabase(ctx, s, server.DSN); err != nil {
				return err
			}
			m.database.insert = took
		}
	}
	folders := 0
	launch := func(i int, pinned bool) (*process, error) {
		folders++
		folder := filepath.Join(dir, strconv.Itoa(folders))
		if err := os.Mkdir(folder, 0o700); err != nil {
			return nil, err
		}
		return startProcess(ctx, s.binary, dsns[i], folder, pinned)
	}
	say("cold starts")
	for range s.rounds {
		for i := range dsns {
			p, err := launch(i, false)
			if err != nil {
				return err
			}
			m.starts[i] = append(m.starts[i], start{p.took, p.cpu, p.memory("VmRSS")})
			p.stop()
		}
	}
	say("load")
	for range s.rounds {
		if err := m.load(ctx, s, launch); err != nil {
			return err
		}
	}
	var gateways [2]*process
	for i := range gateways {
		if gateways[i], err = launch(i, true); err != nil {
			return err
		}
		defer gateways[i].stop()
	}
	say("admin API")
	if m.admin, err = measureAdmin(ctx, s, gateways[1], gateways[0]); err != nil {
		return err
	}
	m.sizes, err = measureSizes(ctx, s, dsns[1])
	return err
}

// load measures a round. Its gateways are new ones: where in memory a process happens to
// be makes some percent, for as long as it runs.
func (m *measurements) load(ctx context.Context, s settings, launch func(i int, pinned bool) (*process, error)) error {
	var gateways [2]*process
	for i := range gateways {
		p, err := launch(i, true)
		if err != nil {
			return err
		}
		defer p.stop()
		gateways[i] = p
	}
	pinSelf(ctx)
	defer unpinSelf(ctx)
	sameText := text(sameHost, "/same/42")
	random := rand.New(rand.NewPCG(5, 6))
	spread := make([]string, s.requests)
	for i := range spread {
		q := hit(random.IntN(s.routes), s.routes, s.hosts)
		spread[i] = text(q.Host, q.Path)
	}
	kinds := [...]struct {
		p       *process
		request func(int) string
	}{
		loadOne:    {gateways[0], func(int) string { return sameText }},
		loadAll:    {gateways[1], func(int) string { return sameText }},
		loadSpread: {gateways[1], func(i int) string { return spread[i] }},
	}
	for i, kind := range kinds {
		if _, err := kind.p.load(ctx, max(loadConns, s.requests/6), kind.request); err != nil {
			return fmt.Errorf("warming up: %w", err)
		}
		r, err := kind.p.load(ctx, s.requests, kind.request)
		if err != nil {
			return fmt.Errorf("load: %w", err)
		}
		m.loads[i] = append(m.loads[i], r)
	}
	return nil
}

// adminFigure is what a question to the admin API takes.
type adminFigure struct {
	name   string
	took   time.Duration // the median of rounds, or the one time
	answer int           // bytes
	peak   float64       // bytes of memory at the most, while it was asked
}

// measureAdmin asks full, which has all routes, and then makes empty have them too.
func measureAdmin(ctx context.Context, s settings, full, empty *process) ([]adminFigure, error) {
	var list []adminFigure
	ask := func(p *process, rounds int, name, method, path, contentType string, body []byte) ([]byte, error) {
		var times []float64
		f := adminFigure{name: name}
		p.resetPeak()
		var answer []byte
		for range rounds {
			var err error
			var took time.Duration
			if answer, took, err = p.ask(ctx, method, path, contentType, body); err != nil {
				return nil, err
			}
			times = append(times, float64(took))
		}
		f.took, f.answer, f.peak = time.Duration(report.Median(times)), len(answer), p.memory("VmHWM")
		list = append(list, f)
		return answer, nil
	}
	for _, q := range []struct{ name, path string }{
		{"a page of routes", "/api/routes?limit=100"},
		{"routes of one host", "/api/routes?limit=100&host=tenant0.example.com"},
		{"routes with a text", "/api/routes?limit=100&q=orders99"},
		{"a page of hosts", "/api/hosts?limit=100"},
		{"a page of statistics", "/api/stats?limit=100"},
		{"status", "/api/status"},
		{"a page of history", "/api/revisions?limit=10"},
	} {
		if _, err := ask(full, s.rounds, q.name, http.MethodGet, q.path, "", nil); err != nil {
			return nil, err
		}
	}
	doc, err := ask(full, s.rounds, "the whole configuration", http.MethodGet, "/api/config", "", nil)
	if err != nil {
		return nil, err
	}
	if _, err := ask(full, 1, "the same as YAML", http.MethodGet, "/api/config?format=yaml", "", nil); err != nil {
		return nil, err
	}
	const asJSON = "application/json"
	for _, q := range []struct {
		p          *process
		name, path string
	}{
		{full, "putting it unchanged", "/api/config"},
		{empty, "putting it where it is all new, dry run", "/api/config?dry_run=true"},
		{empty, "putting it where it is all new", "/api/config"},
	} {
		if _, err := ask(q.p, 1, q.name, http.MethodPut, q.path, asJSON, doc); err != nil {
			return nil, err
		}
	}
	_, err = ask(full, s.rounds, "a reload of Caddy", http.MethodPost, "/load", "text/caddyfile", full.caddyfile)
	return list, err
}

// quantile returns the p-th quantile of sorted times, by the nearest rank.
func quantile(sorted []time.Duration, p float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[max(0, int(math.Ceil(p*float64(len(sorted))))-1)]
}
