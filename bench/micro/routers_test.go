package main

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/go-chi/chi/v5"
	"github.com/tigerwill90/fox"

	"github.com/isekai-gateway/isekai/routing"
	"github.com/isekai-gateway/isekai/store"
)

// router is a library with routes in it.
type router struct {
	name  string
	hosts bool // routes may have some
	most  int  // routes that it takes in seconds
	build func(tb testing.TB, routes []route) find
}

// find makes what looks up the i-th of the requests and reports whether there is a route,
// and how many parameters it knows; a library that does not tell says 0.
type find func(requests []*http.Request) func(i int) (found bool, params int)

func routers() []router {
	return []router{
		{"isekai, Table.Match", true, math.MaxInt, buildTable(false)},
		{"isekai, and canonical path", true, math.MaxInt, buildTable(true)},
		{"fox", true, math.MaxInt, buildFox},
		{"chi", false, math.MaxInt, buildChi},
		// It compares each pattern that ends in a rest with all others.
		{"ServeMux", true, 10_000, buildServeMux},
	}
}

// holds reports whether it can be given the set.
func (r router) holds(set routeSet, routes []route) bool {
	return len(routes) <= r.most && (r.hosts || !set.hosts)
}

// buildTable returns what builds our table. canonical adds what the gateway does before,
// and others don't: it brings the path to its canonical form.
func buildTable(canonical bool) func(testing.TB, []route) find {
	return func(tb testing.TB, routes []route) find {
		rows := make([]*store.Route, len(routes))
		for i, r := range routes {
			row := store.NewRoute(r.path, "http://127.0.0.1:9")
			row.ID, row.Revision, row.Method, row.Host = int64(i+1), 1, r.method, r.host
			rows[i] = row
		}
		table := routing.NewTable(rows, 1)
		if table.Broken() > 0 || table.Len() != len(rows) {
			tb.Fatalf("%d of %d routes are broken", table.Broken(), len(rows))
		}
		return func(requests []*http.Request) func(int) (bool, int) {
			var space [8]routing.Param
			return func(i int) (bool, int) {
				r := requests[i]
				path := r.URL.Path
				if canonical {
					p, err := routing.CanonicalURLPath(r.URL)
					if err != nil {
						return false, 0
					}
					path = p.Text
				}
				q := routing.Request{Method: r.Method, Host: routing.RequestHost(r.Host), Path: path, Header: r.Header}
				found := table.Match(&q)
				if found == nil {
					return false, 0
				}
				return true, len(found.Pattern().AppendParams(space[:0], path))
			}
		}
	}
}

func buildFox(tb testing.TB, routes []route) find {
	f, err := fox.NewRouter()
	if err != nil {
		tb.Fatal(err)
	}
	// All at once: that is what it has transactions for.
	err = f.Updates(func(txn *fox.Txn) error {
		for _, r := range routes {
			if _, err := txn.Add([]string{r.method}, r.host+strings.Replace(r.path, "/*", "/*{rest}", 1), func(*fox.Context) {}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		tb.Fatal(err)
	}
	return func(requests []*http.Request) func(int) (bool, int) {
		return func(i int) (bool, int) {
			found, c, tsr := f.Lookup(nil, requests[i])
			if found == nil {
				return false, 0
			}
			params := 0
			for range c.Params() {
				params++
			}
			c.Close()
			return !tsr, params
		}
	}
}

func buildChi(_ testing.TB, routes []route) find {
	mux := chi.NewRouter()
	for _, r := range routes {
		mux.MethodFunc(r.method, r.path, func(http.ResponseWriter, *http.Request) {})
	}
	// As its own ServeHTTP does, for each request.
	pool := sync.Pool{New: func() any { return chi.NewRouteContext() }}
	return func(requests []*http.Request) func(int) (bool, int) {
		return func(i int) (bool, int) {
			c := pool.Get().(*chi.Context)
			defer pool.Put(c)
			c.Reset()
			found := mux.Match(c, requests[i].Method, requests[i].URL.Path)
			return found, len(c.URLParams.Keys)
		}
	}
}

func buildServeMux(_ testing.TB, routes []route) find {
	mux := http.NewServeMux()
	handler := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	for _, r := range routes {
		path := strings.Replace(r.path, "/*", "/{rest...}", 1)
		if strings.HasSuffix(path, "/") {
			path += "{$}"
		}
		mux.Handle(r.method+" "+r.host+path, handler)
	}
	return func(requests []*http.Request) func(int) (bool, int) {
		return func(i int) (bool, int) {
			_, pattern := mux.Handler(requests[i])
			return pattern != "", 0
		}
	}
}

// Each library finds the routes that there are, with their parameters, and no others.
func TestRouters(t *testing.T) {
	t.Parallel()
	for _, set := range routeSets() {
		routes := set.routes()
		if len(routes) > 10_000 {
			continue // the same as a smaller one
		}
		for _, lib := range routers() {
			if !lib.holds(set, routes) {
				continue
			}
			t.Run(fmt.Sprintf("%s/%s", set.name, lib.name), func(t *testing.T) {
				t.Parallel()
				find := lib.build(t, routes)
				all := make([]*http.Request, len(routes))
				for i, r := range routes {
					all[i] = r.hit(t.Context(), t)
				}
				look := find(all)
				for i, r := range routes {
					want := strings.Count(r.path, "{") + strings.Count(r.path, "/*")
					if strings.HasPrefix(lib.name, "isekai") {
						want = strings.Count(r.path, "{") // what * stands for has no name here
					}
					if found, params := look(i); !found || params != want && lib.name != "ServeMux" {
						t.Errorf("%+v: found: %t, %d parameters instead of %d", r, found, params, want)
					}
				}
				for i, r := range routes {
					all[i] = r.miss(t.Context(), t)
				}
				for i := range routes {
					if found, _ := look(i); found {
						t.Errorf("%s %s was found", all[i].Host, all[i].URL)
					}
				}
			})
		}
	}
}

func newRequest(ctx context.Context, tb testing.TB, method, host, path string) *http.Request {
	tb.Helper()
	r, err := http.NewRequestWithContext(ctx, method, "http://"+host+path, http.NoBody)
	if err != nil {
		tb.Fatal(err)
	}
	return r
}
