package main

import (
	"slices"
	"strings"

	"github.com/isekai-gateway/isekai/bench/internal/peers"
)

// peer is one way from the load to the backend.
type peer struct {
	name   string
	ours   bool // Isekai
	plain  bool // takes part only in the scenario with the shortest answer
	routes int  // how many it has. One with more than one is only in the scenarios of routes

	start peers.Start

	// absent says why it can't be started here, or nothing.
	absent func(*peers.Rig) string
}

// The names that results are looked up by.
const (
	nameDirect     = "direct to the backend"
	nameCaddy      = "Caddy reverse_proxy"
	nameCaddyTuned = "Caddy, Isekai's server options"
	nameCaddyGC    = "Caddy, GOGC=400"
	nameCaddyLog   = "Caddy, access log"
	nameFull       = "Isekai, full lane"
	nameFast       = "Isekai, fast lane"
	nameLogged     = "Isekai, limit + log + metrics"
	namePostgres   = "Isekai, that with PostgreSQL"
	nameThousand   = "Isekai, 1,000 routes"
	nameMany       = "Isekai, 100,000 routes"
)

// allPeers returns all that there could be.
func allPeers() []peer {
	noPostgres := func(r *peers.Rig) string {
		if r.Postgres == "" {
			return "no -postgres"
		}
		return ""
	}
	observed := peers.Gateway{Routes: 1, Limit: true, Log: true, Scrape: true}
	inPostgres := observed
	inPostgres.Postgres = true
	return []peer{
		{name: nameDirect, routes: 1, start: peers.Direct, absent: peers.Here},
		{name: "nginx", routes: 1, start: peers.Nginx, absent: peers.Installed("nginx")},
		{name: "HAProxy", routes: 1, start: peers.HAProxy, absent: peers.Installed("haproxy")},
		{name: "Traefik", routes: 1, start: peers.Traefik, absent: peers.Installed("traefik")},
		{name: nameCaddy, routes: 1, start: peers.Caddy(peers.CaddySite{}), absent: peers.Here},
		{name: nameCaddyTuned, routes: 1, plain: true, start: peers.Caddy(peers.CaddySite{Tuned: true}), absent: peers.Here},
		{name: nameCaddyGC, routes: 1, plain: true, start: peers.Caddy(peers.CaddySite{Env: []string{"GOGC=400"}}), absent: peers.Here},
		{name: nameCaddyLog, routes: 1, plain: true, start: peers.Caddy(peers.CaddySite{AccessLog: true}), absent: peers.Here},
		{name: nameFull, ours: true, routes: 1, start: peers.Isekai(peers.Gateway{Routes: 1, FullLane: true}), absent: peers.Here},
		{name: nameFast, ours: true, routes: 1, start: peers.Isekai(peers.Gateway{Routes: 1}), absent: peers.HasFastLane},
		{name: nameLogged, ours: true, routes: 1, start: peers.Isekai(observed), absent: peers.Here},
		{name: namePostgres, ours: true, plain: true, routes: 1, start: peers.Isekai(inPostgres), absent: noPostgres},
		{name: nameThousand, ours: true, routes: 1000, start: peers.Isekai(peers.Gateway{Routes: 1000}), absent: peers.Here},
		{name: nameMany, ours: true, routes: 100_000, start: peers.Isekai(peers.Gateway{Routes: 100_000}), absent: peers.Here},
	}
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
