package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"regexp"
	"runtime"
	"strings"
	"testing"
)

// route is one that every library can hold: literal segments, named ones, and a rest.
type route struct{ method, host, path string }

var named = regexp.MustCompile(`\{[a-z_]+\}`)

func (r route) request(ctx context.Context, tb testing.TB, path string) *http.Request {
	host := r.host
	if host == "" {
		host = "api.example.com"
	}
	return newRequest(ctx, tb, r.method, host, path)
}

// hit returns a request for the route.
func (r route) hit(ctx context.Context, tb testing.TB) *http.Request {
	return r.request(ctx, tb, strings.Replace(named.ReplaceAllString(r.path, "42"), "/*", "/css/site.css", 1))
}

// miss returns one that has the route's beginning, and no route.
func (r route) miss(ctx context.Context, tb testing.TB) *http.Request {
	segments := strings.Split(strings.TrimSuffix(r.path, "/*"), "/")
	segments[len(segments)-1] = "none"
	path := named.ReplaceAllString(strings.Join(segments, "/"), "42")
	return r.request(ctx, tb, path+"/of/these/x")
}

// routeSet is routes that libraries are compared with.
type routeSet struct {
	name   string
	hosts  bool
	routes func() []route
}

func routeSets() []routeSet {
	return []routeSet{
		{"an API like GitHub's", false, githubRoutes},
		{"1,000 routes", false, func() []route { return manyRoutes(1000, false) }},
		{"1,000 routes of 100 hosts", true, func() []route { return manyRoutes(1000, true) }},
		{"100,000 routes", false, func() []route { return manyRoutes(100_000, false) }},
		{"100,000 routes of 10,000 hosts", true, func() []route { return manyRoutes(100_000, true) }},
	}
}

// manyRoutes makes n routes, three in four with parameters or a rest.
func manyRoutes(n int, hosts bool) []route {
	all := make([]route, n)
	for i := range all {
		path := [...]string{"/api/v1/orders%d/{id}", "/api/v1/users%d/{id}/items/{item}", "/static%d/*", "/health%d/live"}[i%4]
		all[i] = route{method: http.MethodGet, path: fmt.Sprintf(path, i)}
		if hosts {
			all[i].host = fmt.Sprintf("tenant%d.example.com", i/10)
		}
	}
	return all
}

// BenchmarkRouting looks up requests, one after the other.
func BenchmarkRouting(b *testing.B) {
	for _, set := range routeSets() {
		b.Run("set="+set.name, func(b *testing.B) {
			routes := set.routes()
			hits, misses := requests(b, routes)
			for _, lib := range routers() {
				if !lib.holds(set, routes) {
					continue
				}
				b.Run("lib="+lib.name, func(b *testing.B) {
					// For one library at a time, so that none pays for another's memory.
					find := lib.build(b, routes)
					runtime.GC()
					b.Run("op=hit", func(b *testing.B) { lookUp(b, find(hits), true) })
					b.Run("op=miss", func(b *testing.B) { lookUp(b, find(misses), false) })
				})
			}
		})
	}
}

// requestCount is how many requests there are. It is so many that they find no more of
// a large table in the processor's caches than traffic would.
const requestCount = 1 << 14

func requests(b *testing.B, routes []route) (hits, misses []*http.Request) {
	random := rand.New(rand.NewPCG(1, 2))
	ctx := context.Background() // one that costs nothing
	for range requestCount {
		r := routes[random.IntN(len(routes))]
		hits, misses = append(hits, r.hit(ctx, b)), append(misses, r.miss(ctx, b))
	}
	return hits, misses
}

func lookUp(b *testing.B, look func(int) (bool, int), want bool) {
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if found, _ := look(i % requestCount); found != want {
			b.Fatalf("request %d: found: %t", i%requestCount, found)
		}
	}
}
