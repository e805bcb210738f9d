package main

import (
	"slices"
	"strings"

	"github.com/isekai-gateway/isekai/bench/internal/peers"
)

// contestant is one proxy in one state.
type contestant struct {
	name   string
	start  peers.Start
	absent func(*peers.Rig) string // why it is not here, or nothing

	// direct is no proxy: what the load and the backend take by themselves.
	direct bool

	// event is what goes on meanwhile, or nil. Its requests are compared with all of
	// those of the contestant quiet.
	event event
	quiet string
}

// The names that results are looked up by.
const (
	nameDirect   = "direct to the backend"
	nameCaddy    = "Caddy reverse_proxy"
	nameUnlogged = "Isekai, request_log off"
	nameDefault  = "Isekai, defaults"
	nameObserved = "Isekai, limit + log + metrics"
)

// contestants returns all that there could be. The last gateway has so many routes.
func contestants(routes int) []contestant {
	observed := peers.Gateway{Routes: 1, Limit: true, Log: true, Scrape: true}
	many := observed
	many.Routes, many.Snapshot = routes, true
	return []contestant{
		{name: nameDirect, start: peers.Direct, absent: peers.Here, direct: true},
		{name: "nginx", start: peers.Nginx, absent: peers.Installed("nginx")},
		{name: "HAProxy", start: peers.HAProxy, absent: peers.Installed("haproxy")},
		{name: "Traefik", start: peers.Traefik, absent: peers.Installed("traefik")},
		{name: nameCaddy, start: peers.Caddy(peers.CaddySite{}), absent: peers.Here},
		{name: nameUnlogged, start: peers.Isekai(peers.Gateway{Routes: 1}), absent: peers.Here},
		{name: nameDefault, start: peers.Isekai(peers.Gateway{Routes: 1, Log: true}), absent: peers.Here},
		{name: nameObserved, start: peers.Isekai(observed), absent: peers.Here},
		{name: "1,000 routes are imported at once", start: peers.Isekai(observed), absent: peers.Here, event: importAtOnce, quiet: nameObserved},
		{name: "1,000 routes are made one by one", start: peers.Isekai(observed), absent: peers.Here, event: importOneByOne, quiet: nameObserved},
		{name: "a snapshot of all routes is written", start: peers.Isekai(many), absent: peers.Here, event: writeSnapshot, quiet: nameObserved},
	}
}

// selected returns those that have one of the texts, separated by commas, in their name.
func selected(all []contestant, only string) []contestant {
	return slices.DeleteFunc(slices.Clone(all), func(c contestant) bool {
		return !slices.ContainsFunc(strings.Split(only, ","), func(part string) bool {
			return strings.Contains(strings.ToLower(c.name), strings.ToLower(strings.TrimSpace(part)))
		})
	})
}
