package main

import (
	"net/http"
	"slices"

	"github.com/isekai-gateway/isekai/bench/internal/load"
	"github.com/isekai-gateway/isekai/bench/internal/peers"
)

// scenario is one kind of requests.
type scenario struct {
	name   string
	about  string // for the heading
	answer string
	method string
	body   int
	tls    bool
	http2  bool
	routes bool // with the peers that have many routes, and Isekai and Caddy with one
	each   bool // every request goes to another route

	// Each round has processes of its own. Where one happens to be in memory makes some
	// percent for as long as it runs, as much as what is to be seen here.
	anew bool
}

// The names that results are looked up by.
const (
	scenarioShort  = "128 B"
	scenarioRoutes = "routes"
)

const (
	connections  = 64
	connections2 = 8 // of HTTP/2, with 8 streams each
	streams2     = 8
)

func scenarios() []scenario {
	return []scenario{
		{name: scenarioShort, about: "GET, 128-byte answers", answer: "128"},
		{name: "10 KB", about: "GET, 10 KB answers", answer: "10k"},
		{name: "1 MB", about: "GET, 1 MB answers", answer: "1m"},
		{name: "POST", about: "POST of 1 KB, 128-byte answers", answer: "128", method: http.MethodPost, body: 1 << 10},
		{name: "TLS", about: "GET over TLS 1.3, 128-byte answers", answer: "128", tls: true},
		{name: "HTTP/2", about: "GET over HTTP/2 and TLS 1.3, 8 connections of 8 streams, 128-byte answers", answer: "128", tls: true, http2: true},
		{name: scenarioRoutes, about: "GET of always the same route, out of so many", answer: "128", routes: true, anew: true},
		{name: "routes, each in turn", about: "GET of another route each time", answer: "128", routes: true, each: true},
	}
}

// with returns the peers that take part.
func (s scenario) with(all []peer) []peer {
	return slices.DeleteFunc(slices.Clone(all), func(p peer) bool {
		switch {
		case s.routes:
			return p.name != nameCaddy && p.name != nameFull && p.name != nameFast && p.routes == 1
		case p.routes > 1, s.tls && p.name == nameDirect:
			return true
		default:
			return p.plain && s.name != scenarioShort
		}
	})
}

// job returns what the load has to do.
func (s scenario) job(p peer, at *peers.Running, r *peers.Rig) load.Job {
	j := load.Job{
		Address: at.Address, TLS: s.tls, HTTP2: s.http2, Connections: connections,
		Method: s.method, Answer: s.answer, Body: s.body, Routes: 1,
		Proxy: at.PIDs, Backend: []int{r.BackendPID}, Scrape: at.Scrape, Late: at.Late,
	}
	if j.Method == "" {
		j.Method = http.MethodGet
	}
	if s.tls {
		j.Address = at.TLS
	}
	if s.http2 {
		j.Connections, j.Streams = connections2, streams2
	}
	if s.each {
		j.Routes = p.routes
	}
	if p.name == nameDirect {
		j.Backend = nil // it is what is measured
	}
	return j
}
