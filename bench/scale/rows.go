package main

import (
	"fmt"
	"math/rand/v2"
	"net/http"

	"github.com/isekai-gateway/isekai/routing"
	"github.com/isekai-gateway/isekai/store"
)

// shape is the sort of a route; they come in turn.
type shape struct{ pattern, path string }

// In each group of ten, one has a regexp and one is a prefix. Every seventh route asks
// for a header field as well.
var shapes = [...]shape{
	{"/api/v1/orders%d/{id}", "/api/v1/orders%d/42"},
	{"/api/v1/users%d/{id}/items/{item}", "/api/v1/users%d/42/items/7"},
	{"/static%d/*", "/static%d/css/site.css"},
	{"/health%d", "/health%d"},
	{"/api/v2/orders%d/{id}", "/api/v2/orders%d/42"},
	{"/{tenant}/reports%d", "/acme/reports%d"},
	{"/docs%d/{slug:[a-z]+}", "/docs%d/intro"},
	{"/api/v1/carts%d/{id}/lines", "/api/v1/carts%d/42/lines"},
	{"/media%d/{id}/thumb", "/media%d/42/thumb"},
	{"/rpc%d/call", "/rpc%d/call"},
}

// predicateEvery is how many routes there are to one with a predicate.
const predicateEvery = 7

// hostOf returns the host of the i-th route of n over so many hosts, and one that it
// matches. Every tenth host is a wildcard.
func hostOf(i, n, hosts int) (pattern, name string) {
	h := i * hosts / n
	if h%10 == 9 {
		return fmt.Sprintf("*.zone%d.example.com", h), fmt.Sprintf("a.zone%d.example.com", h)
	}
	name = fmt.Sprintf("tenant%d.example.com", h)
	return name, name
}

// makeRows makes n routes.
func makeRows(n, hosts int) []*store.Route {
	rows := make([]*store.Route, n)
	for i := range rows {
		row := store.NewRoute(fmt.Sprintf(shapes[i%len(shapes)].pattern, i), fmt.Sprintf("http://10.0.%d.%d:8080/base", i>>8&255, i&255))
		row.ID, row.Revision = int64(i+1), 1
		row.Name = fmt.Sprintf("route-%d", i)
		row.Host, _ = hostOf(i, n, hosts)
		if i%predicateEvery == 0 {
			row.Headers = map[string]string{"X-Env": "beta"}
		}
		rows[i] = row
	}
	return rows
}

var betaHeader = http.Header{"X-Env": {"beta"}}

// hit returns a request that the i-th route matches.
func hit(i, n, hosts int) routing.Request {
	_, host := hostOf(i, n, hosts)
	return routing.Request{
		Method: http.MethodGet, Host: host, Header: betaHeader,
		Path: fmt.Sprintf(shapes[i%len(shapes)].path, i),
	}
}

// traffic is a way in which requests are spread over routes.
type traffic struct {
	name string
	miss bool
	make func(random *rand.Rand, n, hosts int) routing.Request
}

// traffics are those that are measured. The skewed one has half of its requests on one
// route of a hundred thousand in a hundred, about.
var traffics = []traffic{
	{"uniform hits", false, func(random *rand.Rand, n, hosts int) routing.Request {
		return hit(random.IntN(n), n, hosts)
	}},
	{"skewed hits", false, func(random *rand.Rand, n, hosts int) routing.Request {
		i := 0
		if n > 1 {
			// Popular routes are anywhere, not side by side.
			i = int(rand.NewZipf(random, 1.1, 1, uint64(n-1)).Uint64() * 7919 % uint64(n))
		}
		return hit(i, n, hosts)
	}},
	{"known host, no path", true, func(random *rand.Rand, n, hosts int) routing.Request {
		q := hit(random.IntN(n), n, hosts)
		q.Path += "/nothing/here"
		if i := len(q.Path); i > 0 {
			q.Path = "/x" + q.Path
		}
		return q
	}},
	{"unknown host", true, func(random *rand.Rand, n, hosts int) routing.Request {
		q := hit(random.IntN(n), n, hosts)
		q.Host = "nobody." + q.Host + ".invalid"
		return q
	}},
}

// makeRequests makes count requests of a sort of traffic. There are many, so that they
// find no more of a large table in the processor's caches than traffic would.
func makeRequests(t traffic, count, n, hosts int) []routing.Request {
	random := rand.New(rand.NewPCG(1, 2))
	list := make([]routing.Request, count)
	for i := range list {
		list[i] = t.make(random, n, hosts)
	}
	return list
}
