package main

import (
	"slices"
	"strings"

	"github.com/isekai-gateway/isekai/bench/internal/peers"
)

// group is settings that are compared with each other. Ratios are to its first variant.
type group struct {
	name     string // of its section
	about    string // what is measured with
	variants []variant
	each     bool // requests go to all routes in turn
}

// variant is a gateway with one setting changed.
type variant struct {
	name string
	gateway
}

type gateway = peers.Gateway

// groups returns all that there are, in the order of docs/tuning.md.
func groups(s settings) []group {
	plain := gateway{Routes: 1}
	observed := gateway{Routes: 1, Limit: true, Log: true}
	stored := observed
	stored.Postgres = s.postgres != ""
	database := "SQLite"
	if stored.Postgres {
		database = "PostgreSQL"
	}
	many := gateway{Routes: s.routes}
	all := []group{
		{name: "collector", about: "one route, request_log off", variants: collectors(plain)},
		{name: "collector-logging", about: "one route with a rate limit, and the request log in SQLite", variants: collectors(observed)},
		{name: "read-body-idle", about: "one route, request_log off", variants: []variant{
			{"read_body_idle of Caddy's default", with(plain, func(g *gateway) {
				g.Server = strings.Replace(peers.ServerOptions, "read_body_idle -1s", "", 1)
			})},
			{"read_body_idle -1s", plain},
		}},
		{name: "batch", about: "one route with a rate limit, and the request log in " + database, variants: []variant{
			{"batch 1000, flush_interval 1s (defaults)", stored},
			{"batch 100", with(stored, func(g *gateway) { g.App = requestLog("batch 100") })},
			{"batch 10000", with(stored, func(g *gateway) { g.App = requestLog("batch 10000") })},
			{"batch 10000, flush_interval 5s", with(stored, func(g *gateway) { g.App = requestLog("batch 10000", "flush_interval 5s") })},
		}},
		{name: "cache", about: "each request to another route, in turn, request_log off", each: true, variants: []variant{
			{"max_size 10000 (default)", many},
			{"max_size for all routes", with(many, func(g *gateway) { g.App = []string{"cache {", "\tmax_size 1000000", "}"} })},
		}},
		{name: "max-conns", about: "one route with a rate limit, and the request log in " + database, variants: []variant{
			{"max_conns 16 (default)", stored},
			{"max_conns 2", with(stored, func(g *gateway) { g.Connections = 2 })},
			{"max_conns 64", with(stored, func(g *gateway) { g.Connections = 64 })},
		}},
	}
	if s.pgo {
		all = append(all, group{name: pgoGroup, about: "one route with a rate limit, and the request log in SQLite", variants: []variant{
			{"go build", observed},
			{"go build -pgo", observed}, // its program is built when it is there
		}})
	}
	return all
}

// pgoGroup is the group whose last variant is built with a profile of the first.
const pgoGroup = "pgo"

func collectors(g gateway) []variant {
	of := func(env ...string) gateway { return with(g, func(g *gateway) { g.Env = env }) }
	headroom := func(value string) gateway {
		return with(g, func(g *gateway) { g.App = append(slices.Clone(g.App), "gc_headroom "+value) })
	}
	return []variant{
		{"gc_headroom 64MiB (default)", g},
		{"gc_headroom off", headroom("off")},
		{"gc_headroom 16MiB", headroom("16MiB")},
		{"gc_headroom 256MiB", headroom("256MiB")},
		{"GOGC=400", of("GOGC=400", "GOMEMLIMIT=off")},
		{"GOGC=off GOMEMLIMIT=256MiB", of("GOGC=off", "GOMEMLIMIT=256MiB")},
	}
}

func with(g gateway, change func(*gateway)) gateway {
	change(&g)
	return g
}

func requestLog(options ...string) []string {
	return append(append([]string{"request_log {"}, options...), "}")
}

// selected returns those that have one of the texts, separated by commas, in their name.
func selected(all []group, only string) []group {
	return slices.DeleteFunc(slices.Clone(all), func(g group) bool {
		return !slices.ContainsFunc(strings.Split(only, ","), func(part string) bool {
			return strings.Contains(g.name, strings.ToLower(strings.TrimSpace(part)))
		})
	})
}
