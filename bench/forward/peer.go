package main

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// peer is one way from the load to the backend.
type peer struct {
	name   string
	ours   bool // Isekai
	plain  bool // takes part only in the scenario with the shortest answer
	routes int  // how many it has. One with more than one is only in the scenarios of routes

	// start makes it listen. What dir holds goes afterwards.
	start func(ctx context.Context, r *rig, dir string) (*running, error)

	// absent says why it can't be started here, or nothing.
	absent func() string
}

// The names that results are looked up by.
const (
	nameDirect     = "direct to the backend"
	nameCaddy      = "Caddy reverse_proxy"
	nameCaddyTuned = "Caddy, Isekai's server options"
	nameCaddyLog   = "Caddy, access log"
	nameFull       = "Isekai, full lane"
	nameLogged     = "Isekai, limit + log + metrics"
	namePostgres   = "Isekai, that with PostgreSQL"
	nameThousand   = "Isekai, 1,000 routes"
	nameMany       = "Isekai, 100,000 routes"
)

// running is a peer that listens.
type running struct {
	address, tls string // host:port; tls is empty if there is none
	pids         []int
	process      *process      // of what we have started for it, or nil
	scrape       string        // URL of metrics that are on
	late         time.Duration // see job.Late
	stop         func()
}

// rig is what all peers share.
type rig struct {
	caddy       string // the program: Caddy with Isekai
	backend     string // host:port
	backendPID  int
	certificate string // files with the certificate, its key, and both
	key         string
	both        string
	postgres    string // DSN, or empty
	proxyCPU    int
	loadCPU     int
}

func peers(postgres string) []peer {
	here := func() string { return "" }
	noPostgres := func() string {
		if postgres == "" {
			return "no -postgres"
		}
		return ""
	}
	return []peer{
		{name: nameDirect, routes: 1, start: startDirect, absent: here},
		{name: "nginx", routes: 1, start: startNginx, absent: installed("nginx")},
		{name: "HAProxy", routes: 1, start: startHAProxy, absent: installed("haproxy")},
		{name: "Traefik", routes: 1, start: startTraefik, absent: installed("traefik")},
		{name: nameCaddy, routes: 1, start: startCaddy(caddySite{}), absent: here},
		{name: nameCaddyTuned, routes: 1, plain: true, start: startCaddy(caddySite{tuned: true}), absent: here},
		{name: nameCaddyLog, routes: 1, plain: true, start: startCaddy(caddySite{accessLog: true}), absent: here},
		{name: nameFull, ours: true, routes: 1, start: startIsekai(gatewaySettings{routes: 1}), absent: here},
		{name: nameLogged, ours: true, routes: 1, start: startIsekai(gatewaySettings{routes: 1, observed: true}), absent: here},
		{name: namePostgres, ours: true, plain: true, routes: 1, start: startIsekai(gatewaySettings{routes: 1, observed: true, postgres: true}), absent: noPostgres},
		{name: nameThousand, ours: true, routes: 1000, start: startIsekai(gatewaySettings{routes: 1000}), absent: here},
		{name: nameMany, ours: true, routes: 100_000, start: startIsekai(gatewaySettings{routes: 100_000}), absent: here},
	}
}

func startDirect(_ context.Context, r *rig, _ string) (*running, error) {
	return &running{address: r.backend, pids: []int{r.backendPID}, stop: func() {}}, nil
}

// installed returns what says whether a program is there.
func installed(program string) func() string {
	return func() string {
		if findProgram(program) == "" {
			return "not installed"
		}
		return ""
	}
}

// findProgram looks on the PATH and where distributions keep servers.
func findProgram(name string) string {
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/sbin", "/usr/local/sbin") {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 { //nolint:gosec // the user's own PATH
			return path
		}
	}
	return ""
}

// selected returns the peers that have one of the texts, separated by commas, in their
// name, and what they are compared with.
func selected(all []peer, only string) []peer {
	return slices.DeleteFunc(slices.Clone(all), func(p peer) bool {
		return p.name != nameCaddy && !matches(p.name, only)
	})
}

// matches reports whether name has one of the texts in it, separated by commas.
func matches(name, only string) bool {
	return slices.ContainsFunc(strings.Split(only, ","), func(part string) bool {
		return strings.Contains(strings.ToLower(name), strings.ToLower(strings.TrimSpace(part)))
	})
}
